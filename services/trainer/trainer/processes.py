"""The ranks that train one model together, started by ``trainer.launch``, ``torchrun`` or ``accelerate launch``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


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
