"""Device, precision and attention that are chosen, and micro-batches that fit the memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ratchet.errors import SettingsError
from ratchet.settings.training import TrainerConfig
from trainer.config import create_default_config
from trainer.core import TrainerEngine, TrainingResult
from trainer.hardware import CACHE_FILE, BatchSizeCache, Hardware, pick_hardware
from trainer.monitoring import TrainingStatusWriter
from trainer.segment import ErrorKind, halve_micro_batch


def picked(name: str, value: str) -> Hardware:
    overrides = {"environment.device": "cpu", name: value}
    return pick_hardware(create_default_config(Path("rows.jsonl"), Path("run"), overrides=overrides))


@pytest.mark.parametrize(
    ("fp_precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_precision_of_a_run_follows_the_setting(fp_precision: str, dtype: torch.dtype) -> None:
    assert picked("hyperparams.fp_precision", fp_precision).compute_dtype == dtype


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_kernel_follows_the_setting(attention: str) -> None:
    assert picked("model.attention", attention).attention == attention


def test_gpu_only_settings_are_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError, match=r"model\.attention flash_attention_2 needs a GPU"):
        picked("model.attention", "flash_attention_2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"environment\.device is 'cuda:0'"):
        picked("environment.device", "cuda:0")


Configure = Callable[..., TrainerConfig]


def memory_for(rows: int, configure: Configure, tmp_path: Path, seen: list[int]) -> Callable[[], bool]:
    """A device with memory for this number of rows: it fails as torch does."""

    def asked() -> bool:
        status = (tmp_path / "status.json").read_text()
        size = int(status.split('"batch_size": ')[1].split(",")[0])
        seen.append(size)
        if size > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return False

    return asked


def test_out_of_memory_retries_with_smaller_batches_and_the_same_steps(
    configure: Configure, sum_file: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    engine = TrainerEngine(
        TrainingStatusWriter(tmp_path / "status.json"), should_stop=memory_for(3, configure, tmp_path, seen)
    )
    result = engine.run_job(configure(sum_file, hyperparams__batch_size=8))

    assert result.success, result.error_message
    assert seen[:3] == [8, 4, 2]
    assert (result.summary["batch_size"], result.summary["gradient_accumulation"]) == (2, 4)
    assert (result.global_step, result.summary["offset"]) == (13, 100)


def test_too_little_memory_for_one_row_is_an_out_of_memory_failure(
    configure: Configure, sum_file: Path, tmp_path: Path
) -> None:
    engine = TrainerEngine(
        TrainingStatusWriter(tmp_path / "status.json"), should_stop=memory_for(0, configure, tmp_path, [])
    )
    assert engine.run_job(configure(sum_file)).error_kind is ErrorKind.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("rows", "accumulation", "smaller"),
    [(8, 1, (4, 2)), (9, 2, (3, 6)), (7, 1, (1, 7)), (5, 4, (2, 10)), (1, 16, None)],
)
def test_smaller_batches_keep_the_rows_of_a_step(
    configure: Configure, rows: int, accumulation: int, smaller: tuple[int, int] | None
) -> None:
    config = configure(Path("x"), hyperparams__batch_size=rows, hyperparams__gradient_accumulation=accumulation)
    found = halve_micro_batch(config)
    assert smaller == (
        None if found is None else (found.hyperparams.batch_size, found.hyperparams.gradient_accumulation)
    )


def test_the_batch_size_that_fitted_is_remembered_by_model_and_device(
    configure: Configure, sum_file: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    status = TrainingStatusWriter(tmp_path / "status.json")
    for run in ("first", "second"):
        engine = TrainerEngine(status, should_stop=memory_for(3, configure, tmp_path, seen))
        assert engine.run_job(configure(sum_file, run, hyperparams__batch_size=8)).finished
    assert seen.count(8) == 1
    assert seen.count(4) == 1
    longer = configure(sum_file, "longer", hyperparams__batch_size=8, hyperparams__max_length=512)
    TrainerEngine(status, should_stop=memory_for(8, configure, tmp_path, seen)).run_job(longer)
    assert seen[-1] == 8, "other rows, other memory"


def test_an_unreadable_memory_file_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / CACHE_FILE).write_text("{")
    cache = BatchSizeCache(tmp_path / CACHE_FILE)
    assert cache.get("tiny") is None
    cache.put("tiny", 4)
    assert cache.get("tiny") == 4


class Short(TrainerEngine):
    """Finds no memory in any micro-batch."""

    def _run(self, config: TrainerConfig) -> TrainingResult:
        raise torch.OutOfMemoryError(f"no memory for {config.hyperparams.batch_size} rows")


def test_with_several_processes_the_next_start_halves_the_batch(
    configure: Configure, sum_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process that tried again would be out of step with the others."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = configure(sum_file, hyperparams__batch_size=8, environment__device="cpu")
    for rows in (8, 4):
        result = Short(TrainingStatusWriter(tmp_path / "status.json")).run_job(config)
        assert result.error_kind is ErrorKind.OUT_OF_MEMORY
        assert f"for {rows} rows" in str(result.error_message)
