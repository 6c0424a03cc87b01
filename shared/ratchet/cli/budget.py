"""What training takes in memory under given settings, estimated from a model's config.json and file headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.cli.fit import count_parameters
from ratchet.inference.folder import CONFIG, read_json
from ratchet.settings.training import EnvironmentSettings, HyperparamSettings, ModelSettings

LEARNT_BYTES = 16
"""Of a trained parameter: fp32 master weight, gradient and AdamW's two moments."""
BUCKET_BYTES = 4
"""Of a trained parameter under DDP: its gradient once more, in the buckets that processes sum up."""
GATHERED_GRADIENT_BYTES = 4
"""Of a gathered parameter under FSDP: its gradient before it is summed and shared out, in fp32."""
FOUR_BIT_BYTES = 0.6
"""Of a frozen parameter in NF4, its scales included."""
LAYER_FACTOR = 34
"""Bytes of activations, in 16 bits, of a token in a layer for each unit of width (Korthikanti et al. 2022, eq. 1,
without the attention matrix, which fused kernels never store)."""


@dataclass(frozen=True)
class Shape:
    """What of a model decides on its memory."""

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class Budget:
    """Bytes of each part, with a micro-batch whose rows all have the greatest length."""

    weights: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.logits


def shape_of(folder: Path) -> Shape:
    """Raises BrokenCheckpoint for a folder without a readable model."""
    config = read_json(folder / CONFIG)
    text: dict[str, Any] = config.get("text_config", config)
    hidden = int(text.get("hidden_size", 0))
    return Shape(
        count_parameters(folder),
        hidden,
        int(text.get("intermediate_size", 4 * hidden)),
        int(text.get("num_hidden_layers", 0)),
        int(text.get("vocab_size", 0)),
    )


@dataclass(frozen=True)
class Holding:
    """How many processes hold the model, and whether each holds a share of it (FSDP) or the whole (DDP)."""

    processes: int = 1
    sharded: bool = False
    reshard: bool = True

    @classmethod
    def of(cls, processes: int, environment: EnvironmentSettings) -> Holding:
        return cls(processes, processes > 1 and environment.parallelism == "fsdp", environment.fsdp_reshard)


def budget(
    shape: Shape, model: ModelSettings, hyperparams: HyperparamSettings, *, half: bool, holding: Holding | None = None
) -> Budget:
    """Of one process. ``half`` says whether computation is in 16 bits. An estimate: kernels and allocators differ."""
    tokens = hyperparams.batch_size * hyperparams.max_length
    layer = LAYER_FACTOR * shape.hidden * (1 if half else 2)
    kept = layer * shape.layers
    if model.gradient_checkpointing:
        kept = layer + 2 * shape.hidden * (1 if half else 2) * shape.layers
    return Budget(
        weights=_held(shape, model, holding or Holding(), half=half),
        activations=tokens * kept,
        logits=tokens * shape.vocabulary * 8,
    )


def _held(shape: Shape, model: ModelSettings, holding: Holding, *, half: bool) -> int:
    """What one process holds of weights, gradients and moments."""
    whole = _weights(shape, model, half=half)
    if holding.processes == 1:
        return whole
    if not holding.sharded:
        return whole + BUCKET_BYTES * _trained(shape, model)
    return whole // holding.processes + _gathered(shape, holding, half=half)


def _gathered(shape: Shape, holding: Holding, *, half: bool) -> int:
    """What lies whole at the same time: embeddings and two layers, or all layers where none is given back."""
    layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate
    embeddings = max(shape.vocabulary * shape.hidden, shape.parameters - shape.layers * layer)
    at_once = min(shape.parameters, embeddings + 2 * layer)
    weights = (at_once if holding.reshard else shape.parameters) * (2 if half else 4)
    return weights + GATHERED_GRADIENT_BYTES * at_once


def _trained(shape: Shape, model: ModelSettings) -> int:
    """Parameters that learn: all of them, or those of adapters on every linear layer."""
    widths = 4 * 2 * shape.hidden + 3 * (shape.hidden + shape.intermediate)
    return model.lora_rank * widths * shape.layers if model.lora_rank else shape.parameters


def _weights(shape: Shape, model: ModelSettings, *, half: bool) -> int:
    if not model.lora_rank:
        return shape.parameters * LEARNT_BYTES
    frozen = FOUR_BIT_BYTES if model.load_in_4bit else (2.0 if half else 4.0)
    return int(shape.parameters * frozen) + _trained(shape, model) * LEARNT_BYTES
