"""How long claims last, when subjects are tried again or given up, and when a worker counts as dead."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ratchet.settings.section import Section


class ControlSettings(Section):
    """Leases, retries and liveness, the same for every system."""

    lease_s: float = Field(60.0, gt=0, description="A claim that is not renewed for so long is free; it is renewed six times as often.")
    timer_s: float = Field(30.0, gt=0, description="How often a worker looks for orphaned claims and unrelayed events.")
    sweep_factor: float = Field(1.0, gt=0, description="Multiplies every system's sweep interval.")
    liveness_s: float = Field(90.0, gt=0, description="A worker silent for so long exits, and is started again.")
    grace_s: float = Field(
        10.0,
        gt=0,
        description="How long running work may take to end when its worker is asked to stop; training has longer where its "
        "steps and saves take longer.",
    )
    task_events: bool = Field(
        False, description="Send Celery's task events and heartbeats, which Flower shows (0.3 % of a core)."
    )
    alive_file: Path | None = Field(
        None, description="File that a living worker touches. Default: one a worker in home/status."
    )
    max_backoff_s: float = Field(30.0, gt=0, description="Longest pause between two tries; the first are shorter.")
    max_failures: int = Field(3, ge=1, description="Errors after which a subject becomes a dead letter.")
    max_kills: int = Field(
        5, ge=1, description="Deaths of its process after which a subject becomes one, while others succeed."
    )
