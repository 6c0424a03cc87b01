"""Several processes as one: what each is told, and all of them again where one had no memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ratchet.children import ChildRunner
from trainer.together import has_failed, in_each

HERE = str(Path(__file__).parent)


def test_one_process_is_told_nothing_of_others() -> None:
    spec = {"output": "/work/segment-0", "environment": {"device": "auto"}}
    assert in_each(spec, 1) == [spec]


def test_each_of_several_knows_its_rank_and_a_meeting_of_their_own() -> None:
    spec = {"output": "/work/segment-0", "environment": {"device": "auto"}}
    told, again = in_each(spec, 3), in_each(spec, 3)
    places = [one["processes"] for one in told]
    assert [place["rank"] for place in places] == [0, 1, 2]
    assert {place["world"] for place in places} == {3}
    assert len({place["meeting"] for place in places}) == 1
    assert again[0]["processes"]["meeting"] != places[0]["meeting"]
    assert Path(places[0]["meeting"]).parent == Path("/work")
    assert [place["on_gpu"] for place in places] == [True] * 3
    (first, _) = in_each({**spec, "environment": {"device": "cpu"}}, 2)
    assert not first["processes"]["on_gpu"]


@pytest.fixture
def runner() -> Iterator[ChildRunner]:
    with ChildRunner(["torch", "accelerate", "trainer.segment"], env={"PYTHONPATH": HERE}) as runner:
        yield runner


@pytest.mark.slow
def test_a_process_without_memory_ends_all_and_all_begin_again_with_half(
    runner: ChildRunner, sum_file: Path, base_model: Path, tmp_path: Path
) -> None:
    spec = {
        "data_path": str(sum_file),
        "output": str(tmp_path / "segment"),
        "model": {"path": str(base_model)},
        "hyperparams": {"batch_size": 4, "segment_max_steps": 2, "save_steps": 2},
        "environment": {"device": "cpu"},
        "status_path": str(tmp_path / "status" / "training_status.json"),
        "short": 1,
        "holds": 2,
    }

    def run() -> dict[str, Any]:
        first, *beside = in_each(spec, 2)
        return runner.run("short_of_memory:train", first, beside=beside, is_failure=has_failed)

    failed = run()
    assert (failed["error_kind"], failed["fits_smaller"]) == ("out_of_memory", 2)
    done = run()
    assert done["success"], done["error_message"]
    assert (done["batch_size"], done["gradient_accumulation"], done["processes"], done["steps"]) == (2, 2, 2, 2)
