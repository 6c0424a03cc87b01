"""Load a checkpoint folder: safetensors only, no code from the folder, nothing from the network."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import PreTrainedModel  # costs seconds: here, it is paid once in a fork server

from ratchet.errors import BrokenCheckpoint
from ratchet.inference.attention import fitting_attention
from ratchet.inference.chat import Tokenizer
from ratchet.inference.digest import weights_digest
from ratchet.inference.folder import check_folder
from ratchet.inference.hardware import Hardware

transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class LoadedModel:
    """A model that may answer. ``context`` is the most tokens, prompt and answer, that it takes."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    weights: str
    hardware: Hardware
    context: int


def load_model(folder: Path, hardware: Hardware, expected_weights: str | None = None) -> LoadedModel:
    """Load and verify. BrokenCheckpoint names the file or tensor, or both digests where they differ."""
    check_folder(folder)
    weights = weights_digest(folder)
    if expected_weights is not None and weights != expected_weights:
        raise BrokenCheckpoint(f"{folder} holds weights {weights[:12]}…, not the expected {expected_weights[:12]}….")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _require_vocabulary(folder, tokenizer, config.get_text_config().vocab_size)
        hardware = replace(hardware, attention=fitting_attention(config, hardware.attention))
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=hardware.torch_dtype,
            attn_implementation=hardware.attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # only to name them ourselves
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{folder} cannot be loaded: {error}") from error
    _require_all_tensors(folder, info)
    require_cache(model)
    _own_memory(model)
    _require_finite(folder, model)
    model.to(hardware.device).eval().requires_grad_(False)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        weights=weights,
        hardware=hardware,
        context=_context(config.get_text_config(), tokenizer),
    )


def _context(config: Any, tokenizer: Tokenizer) -> int:
    return int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)


def require_cache(model: Any) -> None:
    """Raise BrokenCheckpoint for a model that keeps a state of its own kind, as Mamba's, instead of keys and values."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise BrokenCheckpoint(
            f"{type(model).__name__} keeps no keys and values of its tokens: only decoders with attention are served, "
            "and so only they are trained."
        )


def _require_all_tensors(folder: Path, info: dict[str, Any]) -> None:
    for problem in ("missing_keys", "mismatched_keys"):
        if info.get(problem):
            names = sorted(str(name) for name in info[problem])
            raise BrokenCheckpoint(f"{folder}: {problem.replace('_', ' ')} in its weights: {', '.join(names[:5])}.")


def _own_memory(model: Any) -> None:
    """Copy the weights out of the mapped files: what is truncated or overwritten later cannot reach them."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _require_finite(folder: Path, model: Any) -> None:
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise BrokenCheckpoint(f"{folder}: tensor {name} holds NaN or infinite weights.")


def _require_vocabulary(folder: Path, tokenizer: Tokenizer, rows: int) -> None:
    if len(tokenizer) > rows:
        raise BrokenCheckpoint(
            f"{folder}: wrong vocabulary: the tokenizer has {len(tokenizer)} tokens, the model {rows}."
        )
