"""A preview with the given fields, and defaults for the rest."""

from __future__ import annotations

from typing import Any

from ratchet.evaluation.preview import Preview

USUAL = Preview(
    at=0.0,
    step=100,
    backend="local",
    weights="in training",
    line=1,
    seen=False,
    family="chain_sum",
    level=1,
    question="12+7=",
    gold="19",
    answer="12+7=19",
    extracted="19",
    correct=True,
    error=None,
    tokens=8,
    latency_s=0.1,
)


def preview(**told: Any) -> Preview:
    """A right answer to ``12+7=`` by default."""
    return Preview.model_validate({**USUAL.model_dump(), **told})
