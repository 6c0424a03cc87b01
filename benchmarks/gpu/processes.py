"""Measurements in processes of their own: a job is named, started, bounded in time, and read.

A process gets its jobs as JSON and appends a line for each that has ended, so that one that crashes or is killed loses
only what it had not finished. Neither this module nor the process that starts others imports torch.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SERVICES = ("trainer", "evaluator", "deployer", "datagen", "miner")
CHILD = "--child"
LONGEST_REASON = 140
KILL_AFTER_S = 5.0

FUNCTIONS = {
    "card": "benchmarks.gpu.card:describe_card",
    "training": "benchmarks.gpu.training:measure_training",
    "resume": "benchmarks.gpu.resume:measure_resume",
    "judging": "benchmarks.gpu.judging:measure_judging",
    "lease": "benchmarks.gpu.sharing:measure_lease",
    "leased_training": "benchmarks.gpu.sharing:leased_training",
    "halving": "benchmarks.gpu.sharing:measure_halving",
}
"""The function of each kind of job. It takes the job's fields and returns values that JSON can write."""


@dataclass(frozen=True)
class Job:
    """A kind of measurement and its fields. Equal jobs are measured once."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Outcome:
    """The values of a job, or the reason why there are none."""

    values: dict[str, Any] = field(default_factory=dict)
    missing: str | None = None
    took_s: float = 0.0


def paths() -> list[str]:
    """Where this repository's packages are, for a machine on which they are not installed."""
    return [str(ROOT), str(ROOT / "shared"), *(str(ROOT / "services" / name) for name in SERVICES)]


def run_alone(jobs: Sequence[Job], limit_s: float, card_gb: float | None = None) -> list[Outcome]:
    """The outcomes of jobs that run one after another in one process, for at most ``limit_s`` seconds."""
    with tempfile.TemporaryDirectory(prefix="gpu-jobs-") as scratch:
        return _Child(jobs, Path(scratch), card_gb).wait(time.monotonic() + limit_s, limit_s)


def run_together(jobs: Sequence[Job], limit_s: float) -> list[Outcome]:
    """The outcomes of jobs that run at the same time, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="gpu-jobs-") as scratch:
        ends_at = time.monotonic() + limit_s
        children = []
        for number, job in enumerate(jobs):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            children.append(_Child([job], folder, None, own_group=False))
        return [outcome for child in children for outcome in child.wait(ends_at, limit_s)]


class _Child:
    """A process that is killed when its time is up.

    One that this command starts has a process group of its own, which is killed with all that it has started in turn.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, card_gb: float | None, *, own_group: bool = True) -> None:
        self._jobs, self._own_group = jobs, own_group
        self._results, self._log = folder / "results.jsonl", folder / "log"
        spec = folder / "jobs.json"
        spec.write_text(json.dumps({"jobs": [asdict(job) for job in jobs], "card_gb": card_gb}), encoding="utf-8")
        before = os.environ.get("PYTHONPATH")
        environment = {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "0",  # one card: transformers' Trainer would take all of them
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*paths(), *([before] if before else [])]),
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.run", CHILD, str(spec), str(self._results)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=own_group,
            )

    def wait(self, ends_at: float, limit_s: float) -> list[Outcome]:
        try:
            self._process.wait(max(0.0, ends_at - time.monotonic()))
            reason = self._reason()
        except subprocess.TimeoutExpired:
            reason = f"stopped after {limit_s:.0f} s"
        finally:
            self._kill()
        lines = self._results.read_text(encoding="utf-8").splitlines() if self._results.exists() else []
        found = [Outcome(**json.loads(line)) for line in lines]
        return [*found, *[Outcome(missing=reason)] * (len(self._jobs) - len(found))]

    def _reason(self) -> str:
        """Why the process ended without having done all: its last line."""
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return one_line(f"exit code {self._process.returncode}: {lines[-1] if lines else 'it said nothing'}")

    def _kill(self) -> None:
        if self._own_group:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        elif self._process.poll() is None:
            self._process.kill()
        self._process.wait(KILL_AFTER_S)


def one_line(text: str) -> str:
    """The text as one short cell of a table."""
    flat = " ".join(text.split()).replace("|", "/")
    return flat if len(flat) <= LONGEST_REASON else flat[: LONGEST_REASON - 1] + "…"


def child_main(spec: Path, results: Path) -> None:
    """What a process does: each job in turn. A job that fails is a line with its error, and the next one follows."""
    request = json.loads(spec.read_text(encoding="utf-8"))
    from benchmarks.gpu.card import prepare_process  # imports torch

    prepare_process(request["card_gb"])
    with results.open("w", encoding="utf-8") as lines:
        for job in request["jobs"]:
            module, _, function = FUNCTIONS[job["kind"]].partition(":")
            begun = time.monotonic()
            try:
                values = getattr(importlib.import_module(module), function)(**job["fields"])
                outcome = Outcome(values=_finite(values))
            except Exception as error:  # noqa: BLE001  a measurement that fails is told in its row
                outcome = Outcome(missing=one_line(_told(error)))
            told = {**asdict(outcome), "took_s": time.monotonic() - begun}
            lines.write(json.dumps(told, allow_nan=False) + "\n")
            lines.flush()


def _finite(value: Any) -> Any:
    """The value with None for each number that is not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
