"""How controllers claim, wait, give up and prove that they live."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class ControlSettings(Section):
    """Leases, back-off, poison and liveness, the same for every system."""

    lease_s: float = Field(60.0, gt=0, description="A claim that is not renewed for so long belongs to nobody.")
    heartbeat_s: float = Field(10.0, gt=0, description="How often a running claim is renewed.")
    timer_s: float = Field(30.0, gt=0, description="How often a worker looks for orphaned claims and unrelayed events.")
    sweep_factor: float = Field(1.0, gt=0, description="Multiplies every system's sweep interval.")
    liveness_s: float = Field(90.0, gt=0, description="A worker silent for so long exits, to be started afresh.")
    grace_s: float = Field(
        10.0,
        gt=0,
        description="How long running work may take to give way when its worker is asked to stop; training has longer "
        "where its steps and saves take longer.",
    )
    task_events: bool = Field(
        False, description="Send Celery's task events and heartbeats, which Flower shows (0.3 % of a core)."
    )
    alive_file: Path | None = Field(
        None, description="File that a living worker touches. Default: one a worker in home/status."
    )
    backoff_first_s: float = Field(0.5, gt=0, description="First wait after trouble; it doubles from there.")
    max_backoff_s: float = Field(30.0, gt=0, description="Longest wait between two tries.")
    max_failures: int = Field(3, ge=1, description="Errors after which a subject goes to the dead letters.")
    max_kills: int = Field(
        5, ge=1, description="Deaths of its process after which a subject goes there, while others succeed."
    )

    @model_validator(mode="after")
    def _heartbeat_fits_lease(self) -> ControlSettings:
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError(f"heartbeat_s {self.heartbeat_s} must be at most half of lease_s {self.lease_s}.")
        return self
