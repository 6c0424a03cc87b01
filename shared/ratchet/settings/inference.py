"""Settings of everything that asks a model for text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from ratchet.settings.section import Section


class InferenceSettings(Section):
    """How a local model is loaded and batched, and how a remote one is asked."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Where a local model runs: auto (a GPU where there is one), cpu, mps, cuda or cuda:N.",
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="Precision of the weights in inference; auto is bf16 on a GPU and fp32 on a CPU."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="Attention kernel; auto is flash attention where installed, else sdpa. A model that lacks the "
        "one has the next simpler, in the end eager.",
    )
    batch_size: int = Field(256, ge=1, le=8192, description="Most prompts answered in one batch.")
    timeout_s: float = Field(120.0, gt=0, description="Timeout of one request to a remote model server.")
    concurrency: int = Field(16, ge=1, le=512, description="Requests in flight at one remote model server.")
    api_key: SecretStr | None = Field(None, description="Bearer token of a remote model server.")
