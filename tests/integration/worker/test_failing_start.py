"""A worker that fails at its start is reported everywhere with its traceback, and restarted with growing pauses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.cli.doctor import examine
from ratchet.cli.main import app
from ratchet.ledger.tables import WorkerRow
from ratchet.metrics.ledger_backlog import control
from ratchet.processes.supervisor import FIRST_PAUSE_S
from ratchet.run.local_stack import process_names
from ratchet.run.session import FailureReporter
from ratchet.systems import registry
from ratchet.views.reading import read_view
from typer.testing import CliRunner

from tests.support.workers import SHORT, Stack, real_workers, wait_until

LAST_WAIT_S = 2.0

GOOD = """
from ratchet.events.catalogue import BatchQueued
from ratchet.systems import Lane, System

LANE = Lane("look", consumes=(BatchQueued,), find=lambda session, settings: [], do=lambda work: None)
SYSTEM = System("good", "3090", "Looks.", emits=(), sweep_s=60.0, lanes=(LANE,))
"""
BROKEN = {
    "no_function": GOOD.replace('"good"', '"no_function"').replace("do=lambda work: None", "do=None"),
    "lacks_extra": "import a_package_that_nobody_has\n",
}
SAID = {
    "no_function": "TypeError: do of the lane 'look' is None, which is not a function",
    "lacks_extra": "ModuleNotFoundError: No module named 'a_package_that_nobody_has'",
}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    folder = tmp_path / "failing_systems"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, text in {"good": GOOD, **BROKEN}.items():
        (folder / f"{name}.py").write_text(text)
    control = SHORT.model_copy(update={"max_backoff_s": LAST_WAIT_S})
    names = ["good", *BROKEN]
    with real_workers(
        tmp_path / "home", names, packages=["failing_systems"], path=[tmp_path], control=control
    ) as stack:
        yield stack


def rows(stack: Stack) -> dict[str, WorkerRow]:
    with stack.ledger.read() as session:
        return {worker.system: worker for worker in session.query(WorkerRow)}


def test_a_worker_that_fails_at_start_is_reported_with_its_traceback_and_the_others_work(stack: Stack) -> None:
    wait_until(lambda: all(rows(stack).get(name) and rows(stack)[name].failures >= 2 for name in BROKEN), what="them")
    wait_until(lambda: "good" in rows(stack) and rows(stack)["good"].state == "running", what="the good one")
    found = rows(stack)
    for name, said in SAID.items():
        assert found[name].state == "failed"
        assert said in (found[name].error or "")
        assert "Traceback (most recent call last)" in (found[name].error or "")
    assert (found["good"].failures, found["good"].error) == (0, None)

    doctor = {finding.check: finding for finding in examine(stack.settings)}["failures"]
    assert doctor.state == "bad"
    assert all(said in doctor.text for said in SAID.values())
    assert doctor.text.count("Traceback (most recent call last)") == 2

    warnings = read_view(stack.ledger, stack.settings).warnings
    for name, said in SAID.items():
        assert [text for text in warnings if text.startswith(f"{name}@") and said in text]

    with stack.ledger.read() as session:
        families = {family.name: family for family in control(session, stack.ledger.now(), stack.settings)}
    told = {sample.labels["system"]: sample.value for sample in families["ratchet_worker_failures"].samples}
    assert told.keys() == BROKEN.keys()
    assert min(told.values()) >= 2


def test_a_run_reports_a_failing_worker_once_with_its_traceback(stack: Stack) -> None:
    wait_until(lambda: all(name in rows(stack) for name in BROKEN), what="both failures")
    failures, said = FailureReporter(), list[str]()

    def all_are_said() -> bool:
        said.extend(failures.new(stack.ledger, stack.supervisor.processes(), stack.settings.log_folder))
        return all(any(text in one for one in said) for text in SAID.values())

    wait_until(all_are_said, what="it to be said")
    assert all(sum("Traceback (most" in one and text in one for one in said) == 1 for text in SAID.values())
    before = stack.supervisor.processes()["no_function"].restarts
    wait_until(lambda: stack.supervisor.processes()["no_function"].restarts > before, what="another start")
    assert list(failures.new(stack.ledger, stack.supervisor.processes(), stack.settings.log_folder)) == []


def test_a_repaired_worker_starts_without_a_restart_of_the_others(stack: Stack, tmp_path: Path) -> None:
    wait_until(lambda: "no_function" in rows(stack), what="its failure")
    good = stack.supervisor.processes()["good"]
    (tmp_path / "failing_systems" / "no_function.py").write_text(GOOD.replace('"good"', '"no_function"'))
    wait_until(lambda: rows(stack)["no_function"].state == "running", what="it to run")
    assert rows(stack)["no_function"].error is None
    assert stack.supervisor.processes()["good"] == good


def test_the_pauses_between_failing_starts_grow(stack: Stack) -> None:
    def starts() -> list[float]:
        said = [json.loads(line) for line in stack.log("no_function").split("\n") if line]
        return [line["at"] for line in said if line["message"].startswith("this worker has failed")]

    wait_until(lambda: len(starts()) >= 6, what="six starts")
    pauses = [later - earlier for earlier, later in zip(starts(), starts()[1:6], strict=False)]
    least = [FIRST_PAUSE_S * 2**number for number in range(4)] + [LAST_WAIT_S]
    assert all(pause >= at_least for pause, at_least in zip(pauses, least, strict=True)), pauses


def test_a_run_also_starts_a_system_that_cannot_be_imported(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RATCHET_SYSTEMS", "failing_systems")
    for cached in (registry.systems, registry._found):
        cached.cache_clear()
    try:
        assert {*BROKEN, "good"} <= set(process_names(stack.settings))
        doctor = {finding.check: finding for finding in examine(stack.settings)}["systems"]
        assert doctor.state == "bad"
        assert all(said in doctor.text for said in SAID.values())
        listed = CliRunner().invoke(app, ["systems"])
        assert listed.exit_code == 0
        assert "good" in listed.stdout
        assert all(f"{name} cannot be imported: {said}" in listed.stderr for name, said in SAID.items())
    finally:
        for cached in (registry.systems, registry._found):
            cached.cache_clear()
