"""Models of other families than the built-in one: rows beside others are answered as alone, trained, and served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.tiny import VOCABULARY_SIZE, build_tiny_tokenizer
from ratchet.profiles.plain import Plain
from ratchet.settings.training import TrainerConfig
from torch.nn.functional import cross_entropy
from trainer.batches import MicroBatch, collate, pack
from trainer.core import TrainingResult
from trainer.dataset import examples_of, prepare_rows
from trainer.hardware import pick_hardware
from trainer.model import Trainable, load_model
from transformers import AutoConfig, AutoModelForCausalLM

NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GROUPED = {**NARROW, "num_key_value_heads": 1}
CAPPED = {"head_dim": 16, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 1}

FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}, "sdpa_varlen"),
    "qwen2, tied": ("qwen2", {**GROUPED, "tie_word_embeddings": True}, "sdpa_varlen"),
    "mistral, window": ("mistral", {**GROUPED, "head_dim": 16, "sliding_window": 16}, "sdpa"),
    "gemma2, window and capped": ("gemma2", {**GROUPED, **CAPPED, "sliding_window": 16}, "eager"),
    "bloom, no places": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, "eager"),
}
"""Type of transformers, the shape, and the attention that it is trained with on a CPU."""


def build(folder: Path, kind: str, shape: dict[str, Any]) -> Path:
    """Wide random weights, so that what a token sees tells in what it answers."""
    tokenizer = build_tiny_tokenizer()
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY_SIZE, **special, **shape)
    model = AutoModelForCausalLM.from_config(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The model's folder, and the attention expected of it."""
    kind, shape, attention = FAMILIES[request.param]
    return build(tmp_path_factory.mktemp("families") / kind, kind, shape), attention


@torch.no_grad()
def loss_of(trainable: Trainable, batches: list[MicroBatch]) -> float:
    """Mean over the trained tokens."""
    total, count = 0.0, 0
    for batch in batches:
        position_ids = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
        logits = trainable.model(input_ids=batch.inputs, use_cache=False, **position_ids).logits[
            :, -batch.logits_to_keep :
        ]
        total += float(cross_entropy(logits.flatten(0, 1)[batch.target_positions], batch.targets, reduction="sum"))
        count += batch.trained_tokens
    return total / count


def test_rows_beside_others_lose_what_they_lose_alone(
    family: tuple[Path, str], configure: Callable[..., TrainerConfig], sum_file: Path
) -> None:
    config = configure(sum_file, model__path=str(family[0]), hyperparams__max_length=128)
    trainable = load_model(config, pick_hardware(config), Plain())
    trainable.model.eval()
    rows = prepare_rows(examples_of(sum_file), Plain(), trainable.tokenizer, system_prompt="", max_length=128).rows
    alone = loss_of(trainable, [collate([row], 0) for row in rows])
    beside = pack(rows) if trainable.supports_packing else collate(rows, 0)
    assert trainable.attention == family[1]
    assert loss_of(trainable, [beside]) == pytest.approx(alone, rel=1e-5)


def test_it_is_trained_and_the_checkpoint_answers_in_a_batch_as_alone(
    family: tuple[Path, str], train: Callable[..., TrainingResult], sum_file: Path
) -> None:
    result = train(sum_file, model__path=str(family[0]), hyperparams__max_length=128)
    assert result.success, result.error_message
    generator = LocalGenerator.load(Path(str(result.last_checkpoint_path)))
    assert generator.hardware.attention == ("eager" if family[1] == "eager" else "sdpa")
    chats = [(Message(role="user", content=text),) for text in ("1+2=", "11+22+33+44+55+66+77+88+99=")]
    decoding = Decoding(max_new_tokens=8)
    together = generator.generate(chats, decoding)
    assert [answer.token_ids for answer in together] == [
        generator.generate([chat], decoding)[0].token_ids for chat in chats
    ]
    scored = generator.score(chats, [answer.token_ids for answer in together])
    for answer, logprobs in zip(together, scored, strict=True):
        assert logprobs == pytest.approx(answer.token_logprobs, abs=1e-4)


def test_a_model_without_keys_and_values_is_refused_before_it_is_trained_for_nothing(
    train: Callable[..., TrainingResult], sum_file: Path, tmp_path: Path
) -> None:
    folder = build(tmp_path / "mamba", "mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4})
    result = train(sum_file, model__path=str(folder), hyperparams__max_length=128)
    assert "MambaForCausalLM has no KV cache" in str(result.error_message)
    with pytest.raises(BrokenCheckpoint, match="only decoders with attention"):
        LocalGenerator.load(folder)
