"""All faults. Each comes up equally often."""

from __future__ import annotations

from benchmarks.chaos.faults.damage_faults import DAMAGE_FAULTS
from benchmarks.chaos.faults.http_faults import HTTP_FAULTS
from benchmarks.chaos.faults.process_faults import PROCESS_FAULTS
from benchmarks.chaos.faults.redis_faults import REDIS_FAULTS
from benchmarks.chaos.faults.store_faults import STORE_FAULTS

FAULTS = (*PROCESS_FAULTS, *REDIS_FAULTS, *HTTP_FAULTS, *DAMAGE_FAULTS, *STORE_FAULTS)
