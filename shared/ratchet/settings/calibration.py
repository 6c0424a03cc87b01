"""The precision that a confidence threshold has to reach."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class CalibrationSettings(Section):
    """Confidence of whole answers."""

    precision: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="Share of right answers that the abstention threshold of a deployment has to reach.",
    )
