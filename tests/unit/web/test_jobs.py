"""Long actions as processes of their own: their output and exit code stay, whatever becomes of the page."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.settings import Settings
from ratchet.web import jobs as jobs_module
from ratchet.web.jobs import MOST_RUNNING, Job, Jobs

PATIENCE_S = 60.0


def ended(jobs: Jobs, job_id: str) -> Job:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job = jobs.find(job_id)
        assert job is not None
        if not job.is_running:
            return job
        time.sleep(0.1)
    pytest.fail(f"the job has not ended: {job}")


def test_a_job_keeps_its_output_and_exit_code(home: Path) -> None:
    jobs = Jobs(home / "jobs")
    good = jobs.start(Settings(home=home), "show", "The schema", ["config", "schema"], {"of": "settings"})
    bad = jobs.start(Settings(home=home), "show", "A mistake", ["show", "no-such-topic"])
    found = ended(jobs, good)
    assert (found.state, found.facts, "retention" in found.output) == ("done", {"of": "settings"}, True)
    failed = ended(Jobs(home / "jobs"), bad)  # as a page that was started again finds it
    assert (failed.state, "no-such-topic" in failed.output) == ("failed", True)
    assert [job.id for job in jobs.all("show")] == [bad, good]
    assert jobs.find("../../etc") is None
    assert jobs.find("0" * 16) is None


def test_a_job_that_was_killed_has_failed(home: Path) -> None:
    jobs = Jobs(home / "jobs")
    job_id = jobs.start(Settings(home=home), "wait", "Waits", ["migrate", "--wait", "300"])
    os.kill(int((home / "jobs" / job_id / "pid").read_text()), signal.SIGKILL)
    assert ended(jobs, job_id).exit_code == -1


def test_a_job_that_is_removed_while_it_is_read_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two viewers may start jobs at once, and each start removes old ones."""
    folder = home / "jobs" / "0123456789abcdef"
    folder.mkdir(parents=True)
    jobs, exit_code = Jobs(folder.parent), jobs_module._exit_code
    assert jobs.all() == []
    call = {"kind": "data", "title": "adding", "arguments": [], "facts": {}, "at": 1.0}
    (folder / "call.json").write_text(json.dumps(call))
    assert [job.id for job in jobs.all()] == [folder.name]

    def removed(place: Path) -> int | None:
        shutil.rmtree(place)
        return exit_code(place)

    monkeypatch.setattr(jobs_module, "_exit_code", removed)
    assert jobs.all() == []
    assert jobs.find(folder.name) is None


def test_a_job_whose_number_cannot_be_written_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would work on, and the page would say that it has failed."""
    write = jobs_module.atomic_write

    def full(path: Path, text: str, **options: Any) -> None:
        if path.name == "pid":
            raise TransientError(f"The disk of {path} is full.")
        write(path, text, **options)

    monkeypatch.setattr(jobs_module, "atomic_write", full)
    jobs = Jobs(home / "jobs")
    with pytest.raises(TransientError, match="is full"):
        jobs.start(Settings(home=home), "wait", "Waits", ["migrate", "--wait", "300"])
    (process_id,) = jobs._children
    assert os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) == -signal.SIGKILL


def test_jobs_are_limited(home: Path) -> None:
    jobs, settings = Jobs(home / "jobs"), Settings(home=home, ledger={"url": "postgresql+psycopg://x@127.0.0.1:9/x"})
    started = [jobs.start(settings, "wait", "Waits", ["migrate", "--wait", "300"]) for _ in range(MOST_RUNNING)]
    with pytest.raises(PreconditionFailed, match="jobs are running already"):
        jobs.start(settings, "wait", "One more", ["migrate"])
    for job_id in started:
        psutil.Process(int((home / "jobs" / job_id / "pid").read_text())).kill()


def test_two_jobs_on_the_same_subject_never_run_at_once(home: Path) -> None:
    jobs, settings = Jobs(home / "jobs"), Settings(home=home, ledger={"url": "postgresql+psycopg://x@127.0.0.1:9/x"})
    waits = ["migrate", "--wait", "300"]
    with ThreadPoolExecutor(8) as viewers:
        begun = [viewers.submit(jobs.start, settings, "export", "export of #7", waits, None, "seven") for _ in range(8)]
    errors = [error for each in begun if (error := each.exception()) is not None]
    assert [str(error) for error in errors] == ["“export of #7” is running already; wait until it has ended."] * 7
    other = jobs.start(settings, "export", "export of #8", waits, None, "eight")
    same_name = jobs.start(settings, "examples", "one example for seven", waits, None, "seven")
    running = [job for job in jobs.all() if job.is_running]
    assert {job.subject for job in running} == {"seven", "eight"}
    assert {other, same_name} < {job.id for job in running}
    for job in running:
        psutil.Process(int((job.folder / "pid").read_text())).kill()
