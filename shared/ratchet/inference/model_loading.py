"""Loads a checkpoint for inference, with the device, precision and attention kernel that fit this machine.

Only safetensors are read; no code from the folder runs, and nothing comes from the network.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import PreTrainedModel  # costs seconds: here, it is paid once in a fork server

from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.chat_template import Tokenizer
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.settings.serving import InferenceSettings

transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class LoadedModel:
    """A verified model. ``context`` limits the tokens of prompt and answer together."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    weights: str
    hardware: Hardware
    context: int


def load_model(folder: Path, hardware: Hardware, expected_weights: str | None = None) -> LoadedModel:
    """Load and verify. BrokenCheckpoint names the file or tensor, or both digests if they differ."""
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
            ignore_mismatched_sizes=True,  # so that _require_all_tensors can name them in its error
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


def require_cache(model: Any) -> None:
    """Raise BrokenCheckpoint for a model whose state is not keys and values, such as Mamba."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise BrokenCheckpoint(
            f"{type(model).__name__} has no KV cache: only decoders with attention can be served, so only those can be "
            "trained."
        )


def _context(config: Any, tokenizer: Tokenizer) -> int:
    return int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)


def _require_all_tensors(folder: Path, info: dict[str, Any]) -> None:
    for problem in ("missing_keys", "mismatched_keys"):
        if info.get(problem):
            names = sorted(str(name) for name in info[problem])
            raise BrokenCheckpoint(f"{folder}: {problem.replace('_', ' ')} in its weights: {', '.join(names[:5])}.")


def _own_memory(model: Any) -> None:
    """Copy the weights out of the memory-mapped files, so that later changes to a file cannot affect them."""
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


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Hardware:
    """Where and how a model runs. ``dtype`` is a key of DTYPES; ``engine`` and ``gpu_class`` are in a record's key."""

    device: str
    dtype: str
    attention: str

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def engine(self) -> str:
        torch_version = torch.__version__.split("+")[0]
        return f"transformers-{transformers.__version__}/torch-{torch_version}/{self.attention}"

    @property
    def gpu_class(self) -> str:
        if not self.device.startswith("cuda"):
            return self.device
        name = torch.cuda.get_device_name(self.device).lower()
        return re.sub(r"[^a-z0-9]+", "-", name.replace("nvidia", "").replace("geforce", "")).strip("-")


def pick_hardware(settings: InferenceSettings) -> Hardware:
    """A GPU if there is one, in bf16 (fp16 if it does not support bf16); otherwise the CPU in fp32.

    Flash attention is used if it is installed and the dtype allows it, otherwise SDPA.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"inference.device is {device!r}, but torch finds no CUDA GPU; set it to auto or cpu.")
    dtype: str = settings.dtype
    if dtype == "auto":
        dtype = _best_gpu_dtype() if device.startswith("cuda") else "fp32"
    attention: str = settings.attention
    if attention == "auto":
        flash = device.startswith("cuda") and dtype != "fp32" and transformers.utils.is_flash_attn_2_available()
        attention = "flash_attention_2" if flash else "sdpa"
    return Hardware(device=device, dtype=dtype, attention=attention)


def _best_gpu_dtype() -> str:
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


_SIMPLER = (("flash_attention_2", "_supports_flash_attn"), ("sdpa", "_supports_sdpa"))
"""Kernels, fastest first, each with the model class attribute that declares support. Every model has ``eager``."""


def fitting_attention(config: Any, wanted: str) -> str:
    """``wanted``, or the next simpler kernel that the model's class supports. (Gemma 2 caps its scores; sdpa cannot.)

    ``config`` is the model's transformers config. Unknown kernels are returned as they are; transformers refuses them.
    """
    kernels = [kernel for kernel, _ in _SIMPLER]
    if wanted not in kernels or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return wanted
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    rest = _SIMPLER[kernels.index(wanted) :]
    return next((kernel for kernel, support in rest if getattr(model, support, False)), "eager")
