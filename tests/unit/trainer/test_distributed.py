"""Several processes train like one: sharding in one process, and real gloo processes under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ratchet.file_lock import is_locked
from ratchet.inference.tiny import build_tiny_model
from ratchet.profiles.plain import Plain
from ratchet.settings.training import TrainerConfig
from safetensors.torch import load_file, save_file
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
from trainer.launch import run_segment
from trainer.model import LOAD_LOCK, load_on_device
from transformers import AutoModelForCausalLM

from tests.support.examples import sums, write_examples
from tests.support.segments import segment_spec


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
def test_every_weight_is_sharded_and_can_be_gathered(base_model: Path) -> None:
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
    """Its tokens are read after the model, and it sees whether other processes could read theirs."""

    turns: Path = Path()
    others_waited: list[bool] = field(default_factory=list)

    def tokens(self) -> tuple[str, ...]:
        self.others_waited.append(is_locked(self.turns))
        return ()


@pytest.mark.usefixtures("group")
def test_a_sharded_model_is_read_by_one_process_at_a_time(configure: Any, tmp_path: Path) -> None:
    config: TrainerConfig = configure(Path("x"), environment__device="cpu", environment__parallelism="fsdp")
    witness = Witness(tmp_path / "run" / LOAD_LOCK)
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


def test_a_model_is_sharded_with_fsdp_and_several_processes(configure: Any) -> None:
    def sharded(world_size: int, **settings: Any) -> bool:
        config: TrainerConfig = configure(Path("x"), environment__device="cpu", **settings)
        return pick_hardware(config, Processes(0, world_size)).sharded

    assert sharded(2, environment__parallelism="fsdp")
    assert not sharded(2, environment__parallelism="ddp")
    assert not sharded(1, environment__parallelism="fsdp")


def test_the_memory_key_of_a_sharded_model_depends_on_the_number_of_processes(configure: Any) -> None:
    config: TrainerConfig = configure(Path("x"), environment__device="cpu", environment__parallelism="fsdp")
    keys = {cache_key(config, pick_hardware(config, Processes(0, world_size))) for world_size in (1, 2, 4)}
    assert len(keys) == 3


def test_processes_on_cards_of_different_kinds_share_the_micro_batch_that_fits(
    configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = ["RTX 4090", "RTX 3090"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda card: cards[int(str(card).removeprefix("cuda:"))])
    config: TrainerConfig = configure(Path("x"))

    def key(rank: int, world_size: int) -> str:
        return cache_key(config, Hardware(f"cuda:{rank}", "bf16", "sdpa", Processes(rank, world_size, rank)))

    assert key(0, 2) == key(1, 2)
    assert key(0, 1) != key(1, 1)


HERE = Path(__file__).parent


def torchrun(module: str, *arguments: str, folder: Path = HERE) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", module]
    return subprocess.run([*launcher, *arguments], capture_output=True, text=True, check=False, cwd=folder)


def printed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def assert_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal in what was trained on; in loss and weights, but for the order in which numbers were added."""
    for key in ("steps", "offset", "rows", "tokens", "trained_tokens", "global_step", "total_tokens"):
        assert one[key] == other[key], key
    for (step, loss), (other_step, other_loss) in zip(one["loss_curve"], other["loss_curve"], strict=True):
        assert step == other_step
        assert loss == pytest.approx(other_loss, rel=1e-4)
    for file in ("final_model/*.safetensors", "state/optimizer.safetensors"):
        places = (Path(result["last_checkpoint_path"]).parent for result in (one, other))
        mine, its = (load_file(next(place.glob(file))) for place in places)
        assert mine.keys() == its.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, its[name], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_resume_its_state(
    sum_file: Path, base_model: Path, tmp_path: Path
) -> None:
    def spec(name: str, batch_size: int, model: str | Path = base_model, state: str | None = None) -> dict[str, Any]:
        hyperparams = {"batch_size": batch_size, "gradient_accumulation": 2, "save_steps": 5}
        return segment_spec(
            sum_file, tmp_path / name, resume_from=state, model={"path": str(model)}, hyperparams=hyperparams
        ).encode()

    alone = run_segment(spec("alone", 6), lambda _: None)
    after = (alone["last_checkpoint_path"], alone["state_path"])
    alone_again = run_segment(spec("alone_again", 6, *after), lambda _: None)
    (tmp_path / "spec.json").write_text(json.dumps(spec("both", 3, *after)), encoding="utf-8")
    both = printed(torchrun("trainer.launch", str(tmp_path / "spec.json")))

    assert (both["processes"], both["parallelism"], both["finished"], both["offset"]) == (2, "ddp", True, 100)
    assert_alike(both, alone_again)


@pytest.mark.slow
def test_the_command_line_in_two_processes_prints_once(tmp_path: Path) -> None:
    """Segment after segment, on the built-in model, which both would make."""
    write_examples(tmp_path / "sums.jsonl", sums(40, longest=4))
    flags = ["--dataset", "sums.jsonl", "--output-dir", "out", "--batch-size", "4", "--save-steps", "2"]
    done = torchrun("trainer", *flags, "--set=environment.device=cpu", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("step 5, loss") == 1
    assert done.stderr.count("step 2  16/40 rows  loss") == 1
    assert {file.name for file in (tmp_path / "out").glob("*-*")} == {"checkpoint-2", "checkpoint-4"}
    assert json.loads((tmp_path / "out/state/state.json").read_text())["position"]["offset"] == 40


class Shared:
    """Runs of two processes that share their model (FSDP2), all in one start of theirs."""

    def __init__(self, folder: Path, base_model: Path) -> None:
        self.folder, self.base_model = folder, base_model
        self.rows = write_examples(folder / "sums.jsonl", sums(100, longest=6))
        broken = build_tiny_model(folder / "broken")
        weights = load_file(broken / "model.safetensors")
        weights["model.norm.weight"] *= float("nan")
        save_file(weights, broken / "model.safetensors", {"format": "pt"})
        specs = {
            "straight": self.spec("straight"),
            "first": self.spec("first", save_steps=3),
            "second": self.spec("second", after="first"),
            "bf16": self.spec("bf16", fp_precision="bf16", max_steps=3),
            "fp16": self.spec("fp16", fp_precision="fp16", max_steps=3),
            "adapters": self.spec("adapters", save_steps=3, lora_rank=4, learning_rate=5e-3),
            "recomputed": self.spec("recomputed", max_steps=3, gradient_checkpointing=True),
            "diverged": self.spec("diverged", path=str(broken)),
        }
        (folder / "specs.json").write_text(json.dumps(specs), encoding="utf-8")
        self.results = printed(torchrun("in_step", str(folder / "specs.json")))

    def spec(self, name: str, after: str | None = None, batch_size: int = 3, **settings: Any) -> dict[str, Any]:
        """Gradients are clipped at every step; the optimizer takes ``batch_size * 4`` rows over two processes."""
        model = {"path": str(self.base_model)} if after is None else {"path": str(self.folder / after / "final_model")}
        own = {
            field: settings.pop(field) for field in ("lora_rank", "gradient_checkpointing", "path") if field in settings
        }
        usual = {"gradient_accumulation": 2, "max_grad_norm": 0.1, "warmup_steps": 2, "schedule": "constant"}
        return segment_spec(
            self.rows,
            self.folder / name,
            resume_from=None if after is None else self.folder / after / "state",
            model={**model, **own},
            hyperparams={**usual, "batch_size": batch_size, **settings},
            environment={"device": "cpu", "parallelism": "fsdp"},
            monitoring={"logging_steps": 1},
        ).encode()

    def alone(self, name: str, after: str | None = None, **settings: Any) -> dict[str, Any]:
        """The result of one process on the same rows."""
        return run_segment(self.spec(f"alone-{name}", after, batch_size=6, **settings), lambda _: None)

    def __getitem__(self, name: str) -> Any:
        return self.results[name]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Shared:
    return Shared(tmp_path_factory.mktemp("shared"), base_model)


@pytest.mark.slow
def test_two_processes_with_a_sharded_model_take_the_steps_of_one(shared: Shared) -> None:
    straight = shared["straight"]
    assert 0.4 < shared["held"] < 0.6, "of the weights a process holds its share"
    assert (straight["processes"], straight["parallelism"], straight["finished"]) == (2, "fsdp", True)
    assert straight["loss_curve"][-1][1] < straight["loss_curve"][0][1]
    assert_alike(straight, shared.alone("straight"))


@pytest.mark.slow
def test_a_stopped_sharded_run_ends_with_the_same_bits_and_can_resume_in_one_process(
    shared: Shared,
) -> None:
    assert (shared["first"]["steps"], shared["second"]["finished"]) == (3, True)
    assert shared["second"]["weights"] == shared["straight"]["weights"]
    assert_alike(shared["second"], shared.alone("second", after="first"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_sharded_run_in_half_precision_saves_the_files_of_one_process(shared: Shared, precision: str) -> None:
    half, alone = shared[precision], shared.alone(precision, fp_precision=precision, max_steps=3)
    assert half["loss_curve"] == [[step, pytest.approx(loss, rel=1e-2)] for step, loss in alone["loss_curve"]]
    weights = load_file(Path(half["last_checkpoint_path"]) / "model.safetensors")
    assert weights.keys() == load_file(Path(alone["last_checkpoint_path"]) / "model.safetensors").keys()
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert AutoModelForCausalLM.from_pretrained(half["last_checkpoint_path"], dtype="auto").dtype == torch.float32


@pytest.mark.slow
def test_adapters_on_sharded_weights_learn_the_same(shared: Shared) -> None:
    settings = {"save_steps": 3, "lora_rank": 4, "learning_rate": 5e-3}
    assert_alike(shared["adapters"], shared.alone("adapters", **settings))
    adapter = load_file(Path(shared["adapters"]["last_checkpoint_path"]) / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in adapter.items() if "lora_A" in name} == {4}


@pytest.mark.slow
def test_gradient_checkpointing_with_shards_gives_the_same_result(shared: Shared) -> None:
    assert shared["recomputed"]["loss_curve"] == shared["straight"]["loss_curve"][:3]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_processes_and_saves_nothing(shared: Shared) -> None:
    assert (shared["diverged"]["success"], shared["diverged"]["error_kind"]) == (False, "diverged")
    assert not (shared.folder / "diverged" / "final_model").exists()


@pytest.mark.slow
def test_a_preview_of_a_sharded_model_is_reported_as_unavailable(shared: Shared) -> None:
    status = json.loads((shared.folder / "straight" / "training_status.json").read_text())
    assert "a sharded model" in status["preview_error"]
    assert status["state"] == "finished"
