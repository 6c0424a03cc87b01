"""Which errors of torch say that memory was too short."""

from __future__ import annotations

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
