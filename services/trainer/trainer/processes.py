"""The processes that train one model together, started by the loop, or by ``torchrun`` or ``accelerate launch``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils.environment import check_cuda_p2p_ib_support


@dataclass(frozen=True)
class Processes:
    """This process among its equals. Alone, every method is free."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        return cls(
            rank=int(os.environ.get("RANK", "0")),
            world=int(os.environ.get("WORLD_SIZE", "1")),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that reports and saves."""
        return self.rank == 0

    def any(self, mine: bool, device: torch.device | str = "cpu") -> bool:
        """Whether it is so in any process: all get the same answer."""
        if self.world == 1:
            return mine
        vote = torch.tensor(float(mine), device=device)
        dist.all_reduce(vote)
        return bool(vote > 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


ALONE = Processes()


def join(place: Mapping[str, Any]) -> None:
    """Meet the other processes of this machine: ``rank`` of ``world``, over the file ``meeting``; returns with all.

    The environment then tells of them as torchrun would, and what they say to each other stays on the machine. Every
    process has its own card among those that all see, and speaks NCCL if ``on_gpu``, else gloo.
    """
    rank, world = int(place["rank"]), int(place["world"])
    told = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    os.environ.update({name: str(value) for name, value in told.items()})
    if sys.platform == "linux":
        os.environ.update({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"})
    on_gpu = bool(place["on_gpu"]) and torch.cuda.is_available()
    if on_gpu:
        if not check_cuda_p2p_ib_support():  # RTX 40 cards under an old driver: accelerate refuses them otherwise
            os.environ.update({"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"})
        torch.cuda.set_device(rank)
    backend, meeting = "nccl" if on_gpu else "gloo", f"file://{place['meeting']}"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=world)
