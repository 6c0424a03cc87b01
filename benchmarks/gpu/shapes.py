"""Shapes of the models that are measured, random weights for them, rows to train on, and the operations of a token.

Weights are drawn, since speed and memory don't depend on them, and nothing has to be downloaded. The tokenizer is that
of the built-in tiny model: its 337 tokens are the first of the vocabulary, whose logits are all computed.
"""

from __future__ import annotations

import json
import math
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ratchet.data.example import Example
from ratchet.inference.model_folder import INDEX, SINGLE
from ratchet.inference.tiny import VOCABULARY_SIZE, build_tiny_tokenizer
from safetensors.torch import save_file
from trainer.dataset import TrainingRows
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

SHARD_BYTES = 2_000_000_000
"""Size of a weights file: so much main memory is needed to write a model, however large it is."""
QWEN3_VOCABULARY = 151_936
INITIAL_STD = 0.02


@dataclass(frozen=True)
class Shape:
    """Widths of a Qwen3 model, in numbers."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    head: int = 128
    vocabulary: int = QWEN3_VOCABULARY
    tied: bool = True

    @property
    def attention(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head

    @property
    def layer_parameters(self) -> int:
        """Weights of the linear layers of one layer: query, key, value, output, gate, up and down."""
        key_value = self.key_value_heads * self.head
        return self.hidden * (2 * self.attention + 2 * key_value + 3 * self.intermediate)

    @property
    def linear_widths(self) -> int:
        """Inputs and outputs of these layers, added up: so many weights has each rank of adapters on them."""
        key_value = self.key_value_heads * self.head
        return 4 * self.hidden + 2 * self.attention + 2 * key_value + 3 * (self.hidden + self.intermediate)

    def config(self) -> Any:
        return Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            head_dim=self.head,
            intermediate_size=self.intermediate,
            max_position_embeddings=4096,
            tie_word_embeddings=self.tied,
            architectures=["Qwen3ForCausalLM"],
            dtype="bfloat16",
        )


SHAPES = {
    "0.6B": Shape(1024, 28, 16, 8, 3072),
    "1.7B": Shape(2048, 28, 16, 8, 6144),
    "8B": Shape(4096, 36, 32, 8, 12288, tied=False),
    "0.1B": Shape(1024, 4, 16, 8, 3072, vocabulary=32_768),
    "toy": Shape(64, 2, 2, 1, 192, head=32, vocabulary=VOCABULARY_SIZE),
}
"""By name: Qwen3-0.6B, -1.7B and -8B as their config.json files have them; four layers of the first with a smaller
vocabulary, where many states are written; and the shape of the built-in tiny model."""


def write_random_model(folder: Path, shape: Shape, device: str, seed: int = 0) -> Path:
    """Write a model in bf16 with random weights, drawn on ``device``, as a Hugging Face folder; return the folder."""
    folder.mkdir(parents=True)
    config, tokenizer = shape.config(), build_tiny_tokenizer()
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config.update(special)
    config.save_pretrained(folder)
    GenerationConfig(do_sample=False, **special).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with torch.device("meta"):
        empty = Qwen3ForCausalLM(config)
    shapes = {name: parameter.shape for name, parameter in empty.named_parameters()}  # tied weights are named once
    generator = torch.Generator(device).manual_seed(seed)
    shards = list(_shards(shapes))
    names = [SINGLE] if len(shards) == 1 else [_shard_name(n, len(shards)) for n in range(1, len(shards) + 1)]
    for file, shard in zip(names, shards, strict=True):
        weights = {name: _drawn(shapes[name], name, device, generator) for name in shard}
        save_file(weights, folder / file, {"format": "pt"})
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        size = 2 * sum(math.prod(each) for each in shapes.values())
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def _shards(shapes: dict[str, torch.Size]) -> Iterator[list[str]]:
    shard: list[str] = []
    held = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        if shard and held + size > SHARD_BYTES:
            yield shard
            shard, held = [], 0
        shard.append(name)
        held += size
    yield shard


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors"


def _drawn(shape: torch.Size, name: str, device: str, generator: torch.Generator) -> torch.Tensor:
    if name.endswith("norm.weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    drawn = torch.empty(shape, dtype=torch.bfloat16, device=device)
    return drawn.normal_(0.0, INITIAL_STD, generator=generator).cpu()


SHORTEST_SHARE = 0.25
"""Length of the shortest rows, as a share of the longest."""
ANSWER_SHARE = 0.6
"""Share of a row that is answer, which is trained."""
FRAME_TOKENS = 8
"""Room for what the chat template adds to a row."""


def random_rows(count: int, max_length: int, seed: int = 0, shortest: float = SHORTEST_SHARE) -> list[Example]:
    """Rows of random letters, a token each, of lengths spread evenly from a share of ``max_length`` to it."""
    draw = random.Random(seed)
    return [_row(draw, draw.randint(int(max_length * shortest), max_length) - FRAME_TOKENS) for _ in range(count)]


def _row(draw: random.Random, tokens: int) -> Example:
    letters = "".join(draw.choices(string.ascii_lowercase, k=max(tokens, 4)))
    cut = max(1, int(len(letters) * (1.0 - ANSWER_SHARE)))
    return Example.ask(letters[:cut], letters[cut:], family="letters")


def training_flops(shape: Shape, rows: TrainingRows, *, adapters_only: bool, lora_rank: int = 0) -> float:
    """Operations that one epoch of these rows needs: a multiplication and an addition count as two.

    A forward pass takes two for each weight of a linear layer and token, and for attention four for each unit of its
    width and pair of a token with one before it (Chowdhery et al., 2022, PaLM, appendix B, with causal attention
    counted once). The head is counted for predicted tokens alone. The backward pass takes as many for the gradients of
    the inputs, and as many again for those of the weights, which frozen weights don't have (Hu et al., 2021). What is
    computed of padding, of logits that nothing is trained on, or a second time by checkpointing is not counted.
    """
    passes = 2 if adapters_only else 3
    lengths = [int(length) - 1 for length in rows.lengths]
    tokens, predicted = sum(lengths), sum(row.trained_tokens for row in rows.rows)
    linear = 2.0 * tokens * shape.layers * (shape.layer_parameters * passes + lora_rank * shape.linear_widths * 3)
    head = 2.0 * predicted * shape.hidden * shape.vocabulary * passes
    return linear + head + 3.0 * shape.layers * _attention_flops(shape, lengths)


def _attention_flops(shape: Shape, lengths: Sequence[int]) -> float:
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    return 4.0 * shape.attention * pairs
