"""When a drop counts as a regression."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class RegressionSettings(Section):
    """Differences are fractions of 1."""

    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="Chance that a checkpoint as good as its baselines is called worse anywhere."
    )
    critical_drop: float = Field(
        0.05, gt=0, lt=1, description="A drop proved to exceed this is critical: training rewinds."
    )
