"""An estimate of the memory that training a model takes, from the model's files and the settings; and what memory there
is.

`init`, `config check` and the choice of hyperparameters use this one estimate. It needs no torch.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import BrokenCheckpoint
from ratchet.inference.model_folder import CONFIG, read_json
from ratchet.leases.gpus import list_gpus
from ratchet.settings.training import EnvironmentSettings, HyperparamSettings, ModelSettings
from ratchet.user_files import open_regular

HEADER_LIMIT_BYTES = 100_000_000

PROCESS_BYTES = 450_000_000
"""A process that has imported torch and transformers; on a GPU, the CUDA context."""
LOADED_BYTES = 4
"""For each parameter of the embedding: the allocator keeps the memory in which the largest tensor was converted."""
HELD_BYTES, GRADIENT_BYTES = 12, 4
"""For each trained parameter: fp32 weight and AdamW's two moments, and the gradient in fp32."""
EMBEDDING_BYTES = 8
"""For each parameter of a trained embedding: two dense gradients of it while the last micro-batch's are added up."""
CAST_BYTES = 2
"""For each trained parameter under autocast: its copy in 16 bits, which is kept until the backward pass."""
BUCKET_BYTES = 4
"""For each trained parameter under DDP: a second copy of its gradient, in the all-reduce buckets."""
GATHERED_GRADIENT_BYTES = 4
"""For each gathered parameter under FSDP: its fp32 gradient before the reduce-scatter."""
FOUR_BIT_BYTES = 0.6
"""For each frozen parameter in NF4, including its scales."""
ACTIVATION_BYTES = {True: 16.5, False: 26.0}
"""What a layer keeps for the backward pass, in 16 bits and in fp32: bytes for each token and unit of width, where the
width is that of the hidden states, of all attention heads and of the feed-forward layer together. Measured on
SmolLM2-135M (30 layers) with adapters and with all weights, at 109 to 3,947 tokens, with attention in one kernel."""
LOGIT_BYTES = {True: 16, False: 12}
"""For each predicted token and entry of the vocabulary: logits, their fp32 copy, log-softmax, and two gradients."""
ANSWER_SHARE = 0.3
"""Share of a row's tokens that are predicted, where the rows are not known. Only those are projected to logits."""


@dataclass(frozen=True)
class ModelFacts:
    """What determines a model's memory. Widths are in numbers, ``context`` in tokens, None where it is not stated."""

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    attention: int = 0
    """Width of all query heads together; 0 for the hidden width."""
    key_value: int = 0
    """Width of all key heads together; 0 for the attention's width."""
    context: int | None = None
    dtype: str = "bf16"
    """Precision of the files: bf16, fp16 or fp32."""

    @property
    def width(self) -> int:
        return self.hidden + (self.attention or self.hidden) + self.intermediate

    @property
    def linear_widths(self) -> int:
        """Inputs and outputs of all linear layers of one layer, added up: each rank of an adapter has so many."""
        attention = self.attention or self.hidden
        key_value = self.key_value or attention
        return 2 * (self.hidden + attention) + 2 * (self.hidden + key_value) + 3 * (self.hidden + self.intermediate)


def model_facts(folder: Path) -> ModelFacts:
    """Raises BrokenCheckpoint for a folder without a readable model."""
    config = read_json(folder / CONFIG)
    text: dict[str, Any] = config.get("text_config", config)
    hidden = int(text.get("hidden_size", 0))
    heads = int(text.get("num_attention_heads") or 1)
    head = int(text.get("head_dim") or hidden // heads)
    sizes = _sizes(folder)
    context = text.get("max_position_embeddings")
    return ModelFacts(
        parameters=sizes.total(),
        hidden=hidden,
        intermediate=int(text.get("intermediate_size", 4 * hidden)),
        layers=int(text.get("num_hidden_layers", 0)),
        vocabulary=int(text.get("vocab_size", 0)),
        attention=heads * head,
        key_value=int(text.get("num_key_value_heads") or heads) * head,
        context=int(context) if context else None,
        dtype=_DTYPES.get(sizes.most_common(1)[0][0], "bf16"),
    )


_DTYPES = {"F32": "fp32", "F64": "fp32", "F16": "fp16"}


def count_parameters(folder: Path) -> int:
    """Parameters in a folder's *.safetensors. Raises BrokenCheckpoint where there are none or one cannot be read."""
    return _sizes(folder).total()


def _sizes(folder: Path) -> Counter[str]:
    """Parameters by the dtype that the files name."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BrokenCheckpoint(f"{folder} has no *.safetensors; convert the model (pickled weights are never loaded).")
    sizes: Counter[str] = Counter()
    for file in files:
        for name, tensor in _header(file).items():
            if name != "__metadata__":
                sizes[str(tensor.get("dtype"))] += math.prod(tensor["shape"])
    return sizes


def _header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file. Its length comes first, in 8 bytes, little-endian."""
    try:
        with open_regular(file, BrokenCheckpoint) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > HEADER_LIMIT_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
    except ValueError as error:
        raise BrokenCheckpoint(f"{file} is not a safetensors file: {error}.") from error
    if not isinstance(header, dict):
        raise BrokenCheckpoint(f"{file} is not a safetensors file: its header is not a JSON object.")
    return header


@dataclass(frozen=True)
class ProcessLayout:
    """How many processes hold the model, and whether each holds a share of it (FSDP) or the whole (DDP)."""

    processes: int = 1
    sharded: bool = False

    @classmethod
    def of(cls, processes: int, environment: EnvironmentSettings) -> ProcessLayout:
        return cls(processes, processes > 1 and environment.parallelism == "fsdp")


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one training process by part, for a micro-batch whose rows all have the maximum length."""

    weights: int
    """Weights and moments."""
    gradients: int
    activations: int
    logits: int
    embedding: int = 0
    """More for the gradient of the embedding, when activations are freed already."""
    accumulates: bool = True
    """Whether gradients are kept from one micro-batch to the next; else they grow while activations are freed."""
    process: int = PROCESS_BYTES
    """The process itself, and what the allocator keeps."""

    @property
    def total(self) -> int:
        forward = self.activations + self.logits + self.gradients * self.accumulates
        return self.process + self.weights + max(forward, self.gradients + self.embedding)


def estimate_memory(
    facts: ModelFacts,
    model: ModelSettings,
    hyperparams: HyperparamSettings,
    *,
    half: bool,
    layout: ProcessLayout | None = None,
    answer_share: float = ANSWER_SHARE,
) -> MemoryEstimate:
    """Estimate for one process. ``half``: whether it computes in 16 bits, see ``computes_in_16_bits``."""
    tokens = hyperparams.batch_size * hyperparams.max_length
    layer = ACTIVATION_BYTES[half] * facts.width
    kept = layer * facts.layers
    if model.gradient_checkpointing:
        kept = layer + facts.hidden * (2 if half else 4) * facts.layers
    weights, gradients = _held(facts, model, layout or ProcessLayout(), half=half)
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        activations=int(tokens * kept),
        logits=int(tokens * answer_share * facts.vocabulary * LOGIT_BYTES[half]),
        embedding=0 if model.lora_rank else EMBEDDING_BYTES * facts.vocabulary * facts.hidden,
        accumulates=hyperparams.gradient_accumulation > 1,
        process=PROCESS_BYTES + LOADED_BYTES * facts.vocabulary * facts.hidden,
    )


def computes_in_16_bits(precision: str, *, on_gpu: bool) -> bool:
    """Whether training with this ``hyperparams.fp_precision`` computes in 16 bits."""
    return precision in ("bf16", "fp16") or (precision == "auto" and on_gpu)


def _held(facts: ModelFacts, model: ModelSettings, layout: ProcessLayout, *, half: bool) -> tuple[int, int]:
    """Bytes of weights with their moments, and of gradients, in one process."""
    trained = trained_parameters(facts, model)
    weights, gradients = _weights(facts, model, half=half), GRADIENT_BYTES * trained
    if layout.processes == 1:
        return weights, gradients
    if not layout.sharded:
        return weights, gradients + BUCKET_BYTES * trained
    return weights // layout.processes + _gathered(facts, half=half), gradients // layout.processes


def _gathered(facts: ModelFacts, *, half: bool) -> int:
    """Bytes that FSDP gathers at the same time: embeddings and two layers."""
    layer = 4 * facts.hidden**2 + 3 * facts.hidden * facts.intermediate
    embeddings = max(facts.vocabulary * facts.hidden, facts.parameters - facts.layers * layer)
    at_once = min(facts.parameters, embeddings + 2 * layer)
    return at_once * ((2 if half else 4) + GATHERED_GRADIENT_BYTES)


def trained_parameters(facts: ModelFacts, model: ModelSettings) -> int:
    """Number of trained parameters: all of them, or those of adapters on every linear layer."""
    return model.lora_rank * facts.linear_widths * facts.layers if model.lora_rank else facts.parameters


def _weights(facts: ModelFacts, model: ModelSettings, *, half: bool) -> int:
    trained = trained_parameters(facts, model) * (HELD_BYTES + CAST_BYTES * half)
    if not model.lora_rank:
        return trained
    frozen = FOUR_BIT_BYTES if model.load_in_4bit else (2.0 if half else 4.0)
    return int(facts.parameters * frozen) + trained


def training_memory(processes: int = 1, *, on_cpu: bool = False) -> tuple[int, str]:
    """Bytes for each training process, and a description of that memory: the largest GPUs, else free main memory."""
    cards = [] if on_cpu else sorted(list_gpus(), key=lambda gpu: gpu.memory_bytes, reverse=True)[:processes]
    if cards:
        each = f" (each of {processes} cards)" if processes > 1 else ""
        return cards[-1].memory_bytes, cards[-1].name + each
    why, share = "device cpu" if on_cpu else "no NVIDIA GPU", f" for each of {processes} processes" * (processes > 1)
    import psutil

    return psutil.virtual_memory().available // processes, f"free memory of this machine{share} ({why})"
