"""Loads a checkpoint for inference, with the device, precision and attention kernel that fit this machine.

Adapters are merged into their base as they are loaded, so that everything that judges, serves or exports a checkpoint
has the same weights. Only safetensors are read; no code from the folder runs, and nothing comes from the network.
"""

from __future__ import annotations

import inspect
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import PreTrainedModel  # costs seconds: here, it is paid once in a fork server

from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.adapter_folder import ADAPTER_CONFIG, BaseReference, checked_base, is_adapter
from ratchet.inference.chat_template import Tokenizer
from ratchet.inference.model_folder import ADAPTER, BASE, add_old_keys, check_folder, stored_dtype, weights_digest
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
        model = _load_whole(folder, attn_implementation=hardware.attention, dtype=hardware.torch_dtype)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{folder} cannot be loaded: {error}") from error
    require_cache(model)
    _require_finite(folder, model)
    model.to(hardware.device).eval().requires_grad_(False)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        weights=weights,
        hardware=hardware,
        context=_context(config.get_text_config(), tokenizer),
    )


def load_merged(folder: Path, dtype: torch.dtype | None = None, **options: Any) -> PreTrainedModel:
    """The model of a checkpoint, with adapters merged into their base in the precision in which that is stored.

    It is converted to ``dtype`` if one is given. ``options`` go to transformers. The weights are in this process's own
    memory. Raises BrokenCheckpoint.
    """
    check_folder(folder)
    try:
        return _load_whole(folder, dtype, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{folder} cannot be loaded: {error}") from error


def _load_whole(folder: Path, dtype: torch.dtype | None = None, **options: Any) -> PreTrainedModel:
    if is_adapter(folder):
        model = _load_whole(checked_base(folder), **options)
        merge_adapters(model, folder)
        if dtype is not None:
            _convert(model, dtype)
        return model
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype or DTYPES[stored_dtype(folder)],
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # so that _require_all_tensors can name them in its error
        output_loading_info=True,
        **options,
    )
    _require_all_tensors(folder, info)
    _own_memory(model)
    found: PreTrainedModel = model
    return found


def _convert(model: Any, dtype: torch.dtype) -> None:
    """Convert what is saved of a model. Other buffers, as the frequencies of rotary embeddings, keep their precision,
    as they do when a model is loaded in ``dtype``."""
    saved = set(model.state_dict())
    buffers = (buffer for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point())
    for tensor in (*model.parameters(), *buffers):
        tensor.data = tensor.data.to(dtype)
    model.config.dtype = dtype


_PREFIX = "base_model.model."
_PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
"""Endings of peft's names of a layer's two matrices."""


@torch.no_grad()
def merge_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Add the adapters of a checkpoint to the weights of its base: W + scale · B·A (Hu et al., 2021, section 4.1).

    The sum is rounded once, to the precision of the weights. It is computed in float64 on the CPU, so that every
    machine gets the same bits. Raises BrokenCheckpoint for adapters that do not fit the model.
    """
    scale, tensors = BaseReference.read(folder).scale, load_file(folder / ADAPTER)
    merged = 0
    for end_a, end_b in _PAIRS:
        for name in sorted(name for name in tensors if name.endswith(end_a)):
            layer = name.removeprefix(_PREFIX).removesuffix(end_a)
            try:
                weight = model.get_parameter(f"{layer}.weight")
                delta = tensors[_PREFIX + layer + end_b].double() @ tensors[name].double() * scale
                weight.copy_(weight.double().add_(delta if "embedding" not in end_a else delta.T))
            except (AttributeError, KeyError, RuntimeError) as error:
                raise BrokenCheckpoint(f"{folder / ADAPTER} does not fit its base at {layer}: {error}") from error
            merged += 2
    if merged != len(tensors):
        raise BrokenCheckpoint(f"{folder / ADAPTER} has {len(tensors)} tensors, of which {merged} are adapters.")


def write_merged(folder: Path, target: Path) -> None:
    """Write a checkpoint of adapters as a folder with whole weights, in the precision of its base.

    ``target`` must not exist. Its other files are those of the checkpoint. Raises BrokenCheckpoint.
    """
    model = load_merged(folder)
    model.config.use_cache = True
    model.save_pretrained(target)
    for file in folder.iterdir():
        if file.is_file() and file.name not in (ADAPTER, ADAPTER_CONFIG, BASE, "manifest.json"):
            (target / file.name).unlink(missing_ok=True)
            shutil.copyfile(file, target / file.name)
    add_old_keys(target)


@contextmanager
def whole_weights(folder: Path, scratch: Path) -> Iterator[Path]:
    """The folder itself where its weights are whole; for adapters a folder below ``scratch`` with merged weights, which
    is removed at the end. For readers of folders that cannot merge."""
    if not is_adapter(folder):
        yield folder
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".merged-") as parent:
        write_merged(folder, Path(parent) / "model")
        yield Path(parent) / "model"


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
