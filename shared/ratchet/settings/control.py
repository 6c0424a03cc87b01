"""Sections of control: how workers claim, wait and prove that they live, where systems run, and metrics."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

from pydantic import Field

from ratchet.settings.section import Section


class ControlSettings(Section):
    """Leases, retries and liveness, the same for every system."""

    lease_s: float = Field(
        60.0, gt=0, description="A claim that is not renewed for so long is free; it is renewed six times as often."
    )
    timer_s: float = Field(30.0, gt=0, description="How often a worker looks for orphaned claims and unrelayed events.")
    sweep_factor: float = Field(1.0, gt=0, description="Multiplies every system's sweep interval.")
    liveness_s: float = Field(90.0, gt=0, description="A worker silent for so long exits, and is started again.")
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
        None, description="File that a living worker touches. Default: one a worker in home/status."
    )
    max_backoff_s: float = Field(30.0, gt=0, description="Longest pause between two tries; the first are shorter.")
    max_failures: int = Field(3, ge=1, description="Errors after which a subject becomes a dead letter.")
    max_kills: int = Field(
        5, ge=1, description="Deaths of its process after which a subject becomes one, while others succeed."
    )


Role = Literal["3090", "4090"]
JUDGE: Role = "3090"
TRAINER: Role = "4090"
"""The two roles have the names of the machines that played them first, which are in all queue names."""


class PlacementSettings(Section):
    """The host names are roles; any machine can play one or both."""

    machine: str = Field(default_factory=platform.node, description="This machine's name in worker names.")
    roles: tuple[Role, ...] = Field(
        (JUDGE, TRAINER), description="Roles whose systems run here: 3090 judges, 4090 trains."
    )
    gpus_gb: tuple[int, ...] | None = Field(
        None, description="Whole gigabytes of each GPU that may be leased. Default: all that the driver tells of."
    )
    vram_gb: dict[str, float] = Field(
        default_factory=dict,
        description="Gigabytes of GPU memory that a system's model process leases, as {testing = 10, serving = 8}. "
        "Default: half of the largest GPU for training, a quarter for any other and for the inference server.",
    )
    threads: int = Field(1, ge=1, description="CPU threads of each model process.")


class MetricsSettings(Section):
    """Metrics are pages that Prometheus fetches; where they are is in the ledger's register of workers."""

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
        description="What Prometheus is to call this worker, host or host:port, where that is not the bound address.",
    )
    exporters: dict[str, str] = Field(
        default_factory=dict,
        description='Other programs of this machine with a /metrics page, as {node = "10.0.0.4:9100"}: name and '
        "host:port. Its workers tell Prometheus of them, each as a job of that name.",
    )
