"""Sections of control: claims, retries and liveness of workers, placement of systems, and metrics."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

from pydantic import Field

from ratchet.settings.section import Section


class ControlSettings(Section):
    """Leases, retries and liveness, the same for every system."""

    lease_s: float = Field(
        60.0, gt=0, description="A claim expires if it is not renewed for this long; it is renewed six times as often."
    )
    timer_s: float = Field(
        30.0, gt=0, description="How often a worker checks for orphaned claims and unrelayed events."
    )
    sweep_factor: float = Field(1.0, gt=0, description="Multiplies every system's sweep interval.")
    liveness_s: float = Field(
        90.0, gt=0, description="A worker without a sign of life for this long exits and is restarted."
    )
    grace_s: float = Field(
        10.0,
        gt=0,
        description="How long running work may take to end when its worker is asked to stop; training has longer where "
        "its steps and saves take longer.",
    )
    task_events: bool = Field(
        False, description="Send Celery's task events and heartbeats, which Flower shows (0.3 % of a core)."
    )
    alive_file: Path | None = Field(
        None, description="File that a living worker touches. Default: one per worker in home/status."
    )
    max_backoff_s: float = Field(30.0, gt=0, description="Longest pause between two tries; the first are shorter.")
    max_failures: int = Field(3, ge=1, description="Errors after which a subject becomes a dead letter.")
    max_kills: int = Field(
        5, ge=1, description="Deaths of its process after which a subject becomes a dead letter, if others succeed."
    )


Role = Literal["3090", "4090"]
JUDGE: Role = "3090"
TRAINER: Role = "4090"
"""The roles are named after the GPUs of the first machines; these names are part of all queue names."""


class PlacementSettings(Section):
    """The host names are roles; any machine can play one or both."""

    machine: str = Field(default_factory=platform.node, description="This machine's name in worker names.")
    roles: tuple[Role, ...] = Field(
        (JUDGE, TRAINER), description="Roles whose systems run here: 3090 judges, 4090 trains."
    )
    gpus_gb: tuple[int, ...] | None = Field(
        None, description="Whole gigabytes of each GPU that may be leased. Default: all that the driver reports."
    )
    vram_gb: dict[str, float] = Field(
        default_factory=dict,
        description="Gigabytes of GPU memory that a system's model process leases, as {testing = 10, serving = 8}. "
        "Default: half of the largest GPU for training, a quarter for any other and for the inference server.",
    )
    threads: int = Field(1, ge=1, description="CPU threads of each model process.")


class MetricsSettings(Section):
    """Metrics pages for Prometheus. Their addresses are registered in the ledger."""

    port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="First port to try for a worker's /metrics; the next worker of this machine takes the next one. "
        "0: no metrics.",
    )
    host: str = Field("127.0.0.1", description="Address that the page is bound to.")
    address: str | None = Field(
        None,
        description="Address by which Prometheus reaches this worker, host or host:port, if not the bound one.",
    )
    exporters: dict[str, str] = Field(
        default_factory=dict,
        description='Other programs of this machine with a /metrics page, as {node = "10.0.0.4:9100"}: name and '
        "host:port. Its workers register them for Prometheus, each as a job of that name.",
    )
