"""Bytes flipped in what a run has stored: weights, training states, batches, records, and the ledger's own file.

The bytes are put back after a while, as an operator would from a backup. What the damage led to until then stays: a
checkpoint may have been found broken, or a subject given up because its own artifact was unreadable.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ratchet.ledger.tables import BatchRow, CheckpointRow, EvaluationRow
from sqlalchemy import Select, select

from benchmarks.chaos.faults.fault import Fault
from benchmarks.chaos.live_run import RATCHET, START_S, LiveRun, Stuck

HELD_S = 3.0
NEWEST = 3
HEADER = range(16)
ROOT_PAGE = range(100, 101)


def _newest(what: Select[Any]) -> Callable[[LiveRun], list[str]]:
    def find(run: LiveRun) -> list[str]:
        with run.ledger.read() as session:
            return [artifact for artifact in session.scalars(what.limit(NEWEST)) if artifact]

    return find


KINDS = {
    "weights": _newest(
        select(CheckpointRow.artifact).where(CheckpointRow.state == "saved").order_by(CheckpointRow.ordinal.desc())
    ),
    "training state": _newest(
        select(CheckpointRow.state_artifact)
        .where(CheckpointRow.state_artifact.is_not(None))
        .order_by(CheckpointRow.ordinal.desc())
    ),
    "batch": _newest(
        select(BatchRow.submitted_artifact)
        .where(BatchRow.state.in_(("submitted", "queued", "training")))
        .order_by(BatchRow.submitted_at.desc())
    ),
    "record": _newest(select(EvaluationRow.artifact).order_by(EvaluationRow.created_at.desc())),
}


def flip(kind: str) -> Fault:
    def strike(run: LiveRun, dice: random.Random) -> str:
        found = KINDS[kind](run)
        if not found:
            return f"there is no {kind} yet"
        artifact = dice.choice(found)
        files = [file for file in _files(run, artifact) if file.name != "manifest.json"]
        if not files:
            return f"the files of {artifact[:12]} were deleted just now"
        file = dice.choice(files)
        run.damaged.add(artifact)
        place = dice.randrange(max(file.stat().st_size, 1))
        _flip(file, place)
        time.sleep(HELD_S)
        with suppress(FileNotFoundError):  # retention, or a rewind, may have deleted it
            _flip(file, place)
        return f"byte {place} of {file.name} in {artifact[:12]} for {HELD_S:g} s"

    return Fault(f"byte flipped in a {kind}", strike)


def _files(run: LiveRun, artifact: str) -> list[Path]:
    folder = run.home / "artifacts" / artifact
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _flip(file: Path, place: int) -> None:
    """In place, whatever the file's mode says. Twice is as before."""
    mode = file.stat().st_mode
    file.chmod(mode | 0o200)
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)
        opened.seek(place)
        opened.write(bytes(value ^ 0x10 for value in byte))
    file.chmod(mode)


def flip_in_ledger(run: LiveRun, dice: random.Random) -> str:
    """A run must refuse a damaged ledger, in one sentence, and go on once the file is put back."""
    run.stop()
    file = run.home / "ledger.db"
    run.ledger.engine.dispose()
    for suffix in ("-wal", "-shm"):
        leftover = file.with_name(file.name + suffix)
        if leftover.exists() and leftover.stat().st_size:
            raise Stuck(f"a stopped run has left {leftover.name} behind")
    place = dice.choice(dice.choice((HEADER, ROOT_PAGE)))
    _flip(file, place)
    try:
        done = subprocess.run(
            [*RATCHET, "run"], env=run.environment, capture_output=True, text=True, timeout=START_S, check=False
        )
    finally:
        _flip(file, place)
        run.start()
    if done.returncode != 2 or "ledger" not in done.stderr or "Traceback" in done.stderr:
        raise Stuck(f"a damaged ledger was answered with exit code {done.returncode}: {done.stderr[-300:]}")
    return f"byte {place} of the ledger, which was refused"


DAMAGE_FAULTS = (*map(flip, KINDS), Fault("byte flipped in the ledger", flip_in_ledger))
