"""The processes that train one model together, and sharding the model among them (FSDP2; Zhao et al., 2023).

This module does not start the processes: ``trainer.launch``, ``torchrun`` and ``accelerate launch`` all describe them
in the same environment variables. Each process has one device.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from trainer.hardware import Hardware


@dataclass(frozen=True)
class Processes:
    """This process's rank and the number of processes. With a single process, no method communicates."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        return cls(
            rank=int(os.environ.get("RANK", "0")),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        )

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that reports and saves."""
        return self.rank == 0

    def any(self, mine: bool, device: torch.device | str = "cpu") -> bool:
        """Whether ``mine`` is true in any process. Must be called by all; all get the same answer."""
        if self.world_size == 1:
            return mine
        vote = torch.tensor(float(mine), device=device)
        dist.all_reduce(vote)
        return bool(vote > 0)

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.world_size > 1:
            dist.barrier()


SINGLE_PROCESS = Processes()


def device_mesh(hardware: Hardware) -> DeviceMesh:
    """A one-dimensional mesh of all processes. Must be called by all."""
    PartialState(cpu=not hardware.on_gpu)  # initializes the process group, as the Trainer will
    return init_device_mesh(torch.device(hardware.device).type, (hardware.processes.world_size,))


def shard(model: Any, hardware: Hardware, mesh: DeviceMesh) -> None:
    """Shard a model in place, layer by layer, so that no device ever holds more than its shard and one layer.

    Shards are fp32, as are all trained weights; they are gathered in the run's precision for computation, and gradients
    are summed in fp32. Must be called by all processes, with the same weights; none waits for another.
    """
    policy = MixedPrecisionPolicy()
    if hardware.precision != "fp32":
        policy = MixedPrecisionPolicy(param_dtype=hardware.compute_dtype, reduce_dtype=torch.float32)
    layer_classes = set(model._no_split_modules or ())  # transformers has no public name for it
    for layer in [module for module in model.modules() if type(module).__name__ in layer_classes]:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def is_sharded(model: Any) -> bool:
    return isinstance(model, FSDPModule)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, gathered from all processes if it is sharded; must then be called by all."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Iterable[tuple[str, torch.Tensor]], *, keep: bool = True) -> dict[str, torch.Tensor]:
    """Full tensors in main memory, by name. Must be called by all processes; without ``keep`` the result is empty."""
    kept = {}
    for name, tensor in tensors:
        gathered = full_tensor(tensor.detach())
        if keep:
            kept[name] = gathered.cpu().contiguous()
    return kept


def shard_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The tensor, the same in all processes, on the parameter's device; sharded if the parameter is."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor) or tensor.ndim == 0:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
