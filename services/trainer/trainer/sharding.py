"""Fully sharded data parallelism (FSDP2; Zhao et al., 2023): of each tensor of a model a process holds its share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import PartialState
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.hardware import Hardware


def mesh_of(hardware: Hardware) -> DeviceMesh:
    """All processes in a row. Every process has to call it."""
    PartialState(cpu=not hardware.on_gpu)  # joins the processes, as the Trainer will
    return init_device_mesh(torch.device(hardware.device).type, (hardware.processes.world,))


def shard(model: Any, hardware: Hardware, mesh: DeviceMesh, *, reshard: bool) -> None:
    """Share a model out in place, layer by layer, so that no device ever holds more than its share and one layer.

    Shares are fp32, as all that is trained; for computation they are gathered in the run's precision, and gradients
    are summed in fp32. ``reshard`` gives a layer's gathered weights back after its forward pass. Every process has to
    call it, with the same weights, but none waits for another.
    """
    policy = MixedPrecisionPolicy()
    if hardware.precision != "fp32":
        policy = MixedPrecisionPolicy(param_dtype=hardware.saved_dtype, reduce_dtype=torch.float32)
    kinds = set(model._no_split_modules or ())
    for layer in [module for module in model.modules() if type(module).__name__ in kinds]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def is_sharded(model: Any) -> bool:
    return isinstance(model, FSDPModule)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, from the shares of all processes if it is shared: then each of them has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Iterable[tuple[str, torch.Tensor]], *, keep: bool = True) -> dict[str, torch.Tensor]:
    """Whole tensors in main memory, by name. Every process goes through all of them; who does not keep gets none."""
    kept = {}
    for name, tensor in tensors:
        gathered = whole(tensor.detach())
        if keep:
            kept[name] = gathered.cpu().contiguous()
    return kept


def shared_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The tensor, which all processes have, on the parameter's device; of a shared parameter's, this one's share."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor) or tensor.ndim == 0:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
