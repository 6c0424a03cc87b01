"""How a model is shared out: by layers, gathered in the run's precision, whole again wherever it is saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ratchet.file_lock import is_locked
from ratchet.profiles.plain import Plain
from ratchet.settings.training import TrainerConfig
from torch.distributed.tensor import DTensor
from trainer.distributed import (
    SINGLE_PROCESS,
    Processes,
    device_mesh,
    full_tensor,
    gather,
    is_sharded,
    shard,
    shard_like,
)
from trainer.hardware import Hardware, cache_key, pick_hardware
from trainer.model import TURNS, load_on_device
from transformers import AutoModelForCausalLM


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone: what is shared out among one has the same types as among many."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded_model(base_model: Path, precision: str = "fp32") -> Any:
    model = AutoModelForCausalLM.from_pretrained(base_model)
    hardware = Hardware("cpu", precision, "sdpa", SINGLE_PROCESS, sharded=True)
    shard(model, hardware, device_mesh(hardware))
    return model


@pytest.mark.usefixtures("group")
def test_every_weight_is_shared_and_whole_again_where_it_is_asked_for(base_model: Path) -> None:
    model, before = sharded_model(base_model), AutoModelForCausalLM.from_pretrained(base_model)
    assert is_sharded(model)
    assert not is_sharded(before)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    gathered = gather(model.named_parameters())
    assert list(gathered) == [name for name, _ in before.named_parameters()]
    for name, parameter in before.named_parameters():
        assert torch.equal(gathered[name], parameter)
        again = shard_like(gathered[name], dict(model.named_parameters())[name])
        assert torch.equal(full_tensor(again), parameter)
    assert gather(model.named_parameters(), keep=False) == {}


@dataclass(frozen=True)
class Witness(Plain):
    """Is asked for its tokens once the model is read, and sees whether others could read theirs."""

    turns: Path = Path()
    others_waited: list[bool] = field(default_factory=list)

    def tokens(self) -> tuple[str, ...]:
        self.others_waited.append(is_locked(self.turns))
        return ()


@pytest.mark.usefixtures("group")
def test_a_model_that_is_shared_is_read_by_one_process_at_a_time(configure: Any, tmp_path: Path) -> None:
    config: TrainerConfig = configure(Path("x"), environment__device="cpu", environment__parallelism="fsdp")
    witness = Witness(tmp_path / "run" / TURNS)
    trainable = load_on_device(config, Hardware("cpu", "fp32", "sdpa", SINGLE_PROCESS, sharded=True), witness)
    assert witness.others_waited == [True]
    assert is_sharded(trainable.model)
    whole_one = load_on_device(config, Hardware("cpu", "fp32", "sdpa"), witness)
    assert witness.others_waited == [True, False]
    assert not is_sharded(whole_one.model)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_weights_are_gathered_in_the_runs_precision_and_kept_in_fp32(
    base_model: Path, precision: str, dtype: torch.dtype
) -> None:
    model = sharded_model(base_model, precision)
    seen = []
    layer = model.model.layers[1].mlp.up_proj
    layer.register_forward_pre_hook(lambda module, _: seen.append(module.weight.dtype))
    model(input_ids=torch.arange(3, 20)[None]).logits.float().sum().backward()
    assert seen == [dtype]
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_a_model_is_shared_where_that_is_set_and_there_is_somebody_to_share_it_with(configure: Any) -> None:
    def sharded(world_size: int, **settings: Any) -> bool:
        config: TrainerConfig = configure(Path("x"), environment__device="cpu", **settings)
        return pick_hardware(config, Processes(0, world_size)).sharded

    assert sharded(2, environment__parallelism="fsdp")
    assert not sharded(2, environment__parallelism="ddp")
    assert not sharded(1, environment__parallelism="fsdp")


def test_a_model_that_is_shared_needs_memory_of_its_own(configure: Any) -> None:
    config: TrainerConfig = configure(Path("x"), environment__device="cpu", environment__parallelism="fsdp")
    keys = {cache_key(config, pick_hardware(config, Processes(0, world_size))) for world_size in (1, 2, 4)}
    assert len(keys) == 3
