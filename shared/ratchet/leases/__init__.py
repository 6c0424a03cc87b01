"""Leases on what a machine has few of: cores, GPU memory, worker names. Freed the moment the holder dies."""

from ratchet.leases.cores import CoreLease, acquire_cores, core_count
from ratchet.leases.gpu import GpuLease, acquire_gpu
from ratchet.leases.slots import WorkerName, claim_name

__all__ = ["CoreLease", "GpuLease", "WorkerName", "acquire_cores", "acquire_gpu", "claim_name", "core_count"]
