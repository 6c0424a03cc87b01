"""Which attention kernel a model can be computed with."""

from __future__ import annotations

from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

_SIMPLER = (("flash_attention_2", "_supports_flash_attn"), ("sdpa", "_supports_sdpa"))
"""Kernels, the fastest first, each with what the model's class says of it. Every model has ``eager``."""


def fitting_attention(config: Any, wanted: str) -> str:
    """``wanted``, or the next simpler kernel that the model's class has: Gemma 2 caps its scores, which sdpa does not.

    ``config`` is the model's, of transformers. What is unknown here is left to transformers to refuse.
    """
    kernels = [kernel for kernel, _ in _SIMPLER]
    if wanted not in kernels or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return wanted
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    rest = _SIMPLER[kernels.index(wanted) :]
    return next((kernel for kernel, support in rest if getattr(model, support, False)), "eager")
