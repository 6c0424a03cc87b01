"""Batches, drafts and cropped caches give the output of each architecture's ``generate`` on single prompts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from ratchet.inference.batch_decoder import ContinuousBatch, decode
from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Answer, Prompt
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY, END, PAD = 61, 1, 0
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "bos_token_id": None,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mistral": {"sliding_window": 6},
    "gemma3_text": {
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "mamba": {"state_size": 8},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
}


def some_prompts() -> list[tuple[int, ...]]:
    draw = random.Random(4)
    return [tuple(draw.randrange(2, VOCABULARY) for _ in range(draw.randint(3, 14))) for _ in range(12)]


PROMPTS = some_prompts()
GREEDY = Decoding(max_new_tokens=10)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(7)
    config = AutoConfig.for_model(request.param, **SIZES, **ARCHITECTURES[request.param])
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def alone(model: Any, prompt: tuple[int, ...]) -> list[int]:
    tokens = torch.tensor([prompt])
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=GREEDY.max_new_tokens,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    return list(map(int, output[0, len(prompt) :]))


def answered(model: Any, drafts: list[tuple[int, ...]], *, score_drafts: bool = True) -> list[Answer]:
    prompts = [
        Prompt(prompt, GREEDY.max_new_tokens, GREEDY, draft=draft)
        for prompt, draft in zip(PROMPTS, drafts, strict=True)
    ]
    return decode(
        model,
        prompts,
        end_ids=frozenset({END}),
        pad_id=PAD,
        timeout_s=900,
        max_logits=1_000_000,
        score_drafts=score_drafts,
    )


def test_every_decoding_path_gives_the_answers_of_single_prompts(model: Any) -> None:
    expected = [alone(model, prompt) for prompt in PROMPTS]
    astray = [(*ids[: n % 7], 40, 41, 42) for n, ids in enumerate(expected)]
    ways = {
        "plain": [()] * len(PROMPTS),
        "right": [tuple(ids) for ids in expected],
        "right for a while": astray,
        "some": [() if n % 3 else tuple(ids) for n, ids in enumerate(expected)],
    }
    for name, drafts in ways.items():
        for score_drafts in (True, False):
            found = answered(model, drafts, score_drafts=score_drafts)
            assert [answer.token_ids for answer in found] == expected, name


class Wordless:
    """A codec of tokens without text."""

    end_ids = frozenset({END})
    processors = ()

    @property
    def text(self) -> Wordless:
        return self

    def has_stop_string(self, _token_ids: list[int], _decoding: Decoding) -> bool:
        return False

    def generation(self, _prompt: Prompt, answer: Answer) -> Answer:
        return answer


@dataclass
class Asked:
    prompt: Prompt
    answered: Any = None

    def on_token(self, _answer: Answer) -> bool:
        return False

    def settle(self, generation: Any) -> None:
        self.answered = generation


def test_joining_and_leaving_rows_give_the_answers_of_single_prompts(model: Any) -> None:
    codec: Any = Wordless()
    batch: ContinuousBatch[Asked] = ContinuousBatch(model, codec, PAD, max_rows=8, max_tokens=100_000)
    everyone = [Asked(Prompt(prompt, GREEDY.max_new_tokens, GREEDY)) for prompt in PROMPTS]
    draw, waiting = random.Random(2), list(everyone)
    while waiting or batch.requests:
        fitting = batch.fitting([asked.prompt for asked in waiting[: draw.randint(0, 3)]])
        batch.advance(waiting[:fitting])
        waiting = waiting[fitting:]
    assert [asked.answered.token_ids for asked in everyone] == [alone(model, prompt) for prompt in PROMPTS]
