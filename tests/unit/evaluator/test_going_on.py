"""A run over the suites that was killed goes on with the same records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluator.testing_child import run_suites

from .asking import Spec, records, run


class Killed(Exception):
    """Stands for a SIGKILL between two batches."""


def kill_at(suite: str, done: int) -> Callable[[dict[str, Any]], None]:
    def progress(at: dict[str, Any]) -> None:
        if (at["suite"], at["done"]) == (suite, done):
            raise Killed

    return progress


def test_a_killed_run_goes_on_where_it_was_with_the_same_records(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    for suite, done in (("eval", 16), ("eval", 40), ("probe", 16)):
        with pytest.raises(Killed):
            run_suites(spec(), kill_at(suite, done))
    seen: list[dict[str, Any]] = []
    resumed = run(spec(), seen.append)
    assert [at["done"] for at in seen] == [40, 16, 20]
    for name in ("eval", "probe"):
        assert records(resumed.suites[name]) == records(whole.suites[name])
        assert resumed.suites[name].tokens == whole.suites[name].tokens


def test_another_run_goes_on_with_the_longest_of_those_that_were_killed(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    for work, done in (("first", 32), ("second", 16)):
        with pytest.raises(Killed):
            run_suites(spec(work), kill_at("eval", done))
    seen: list[dict[str, Any]] = []
    earlier = [str(tmp_path / name) for name in ("first", "second", "never")]
    third = run(spec("third", earlier=earlier), seen.append)
    assert [at["done"] for at in seen if at["suite"] == "eval"] == [32, 40]
    assert records(third.suites["eval"]) == records(whole.suites["eval"])


def test_a_torn_line_and_what_follows_are_answered_again(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    with pytest.raises(Killed):
        run_suites(spec(), kill_at("eval", 32))
    part = tmp_path / "work" / "eval.part.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:20]) + lines[20][:50])
    seen: list[dict[str, Any]] = []
    assert records(run(spec(), seen.append).suites["eval"]) == records(whole.suites["eval"])
    assert next(at["done"] for at in seen if at["suite"] == "eval") == 19


def test_records_made_under_other_conditions_are_not_gone_on_with(spec: Spec) -> None:
    with pytest.raises(Killed):
        run_suites(spec(), kill_at("eval", 32))
    seen: list[dict[str, Any]] = []
    run(spec(decoding={"max_new_tokens": 4}), seen.append)
    assert seen[0]["done"] == 0
