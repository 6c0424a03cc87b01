"""What the model runs on: device, dtype and attention, chosen from what is there."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import transformers

from ratchet.errors import SettingsError
from ratchet.settings.inference import InferenceSettings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Hardware:
    """The choice made. ``dtype`` is a key of DTYPES; ``engine`` and ``gpu_class`` go into a record's key."""

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
    """A GPU where one is, in bf16 (fp16 where it has none); else the CPU in fp32.

    Flash attention is taken where it is installed and the dtype allows it, else SDPA.
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
