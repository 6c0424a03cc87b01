"""Which roles this machine plays."""

from __future__ import annotations

import platform
from typing import Literal

from pydantic import Field

from ratchet.settings.section import Section

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
