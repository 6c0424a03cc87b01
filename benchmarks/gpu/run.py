"""A GPU in one command: what training, judging and serving reach on this machine's card, beside the stock trainers.

    python -m benchmarks.gpu.run --minutes 8                 # prints tables; writes results.json
    python -m benchmarks.gpu.run --minutes 8 --card-gb 24    # as if the card had 24 GiB
    python -m benchmarks.gpu.run --minutes 2 --dry           # writes no file

It needs torch and transformers, and downloads nothing: weights are random, and are written to the folder for temporary
files (TMPDIR), which needs 20 GB for the 8B model. trl, bitsandbytes, flash-attn and
liger-kernel take part where they are installed. Each measurement has a process of its own and a limit of time; one that
fails is a row with its error. They run in order of importance, and those that the minutes do not suffice for are named.
Without an NVIDIA GPU the same code runs at toy size on the CPU, in one process, and what needs a card is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # for `python benchmarks/gpu/run.py`
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.gpu.plan import Measurement, Sizes, on_card, on_cpu
from benchmarks.gpu.processes import CHILD, Job, Outcome, child_main, paths, run_alone
from benchmarks.gpu.tables import NO_TIME, Result, report

SMOKE = ("--minutes", "8", "--steps", "2", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
CARD_JOB = Job("card")
CARD_LIMIT_S = 90.0
LEAST_S = 15.0
"""Time left below which no further measurement begins: importing torch and transformers takes most of it."""


Keep = Callable[[Outcome, Sequence[Result]], None]


class Deadline:
    """The end of the minutes that were given."""

    def __init__(self, minutes: float) -> None:
        self._ends_at = time.monotonic() + 60.0 * minutes

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())


def measure(deadline: Deadline, sizes: Sizes, card_gb: float | None, keep: Keep) -> tuple[Outcome, list[Result]]:
    """The card's own figures, and the outcome of every measurement. ``keep`` is called with those so far."""
    if not _has_card():
        return _measure_together(on_cpu(sizes), deadline)
    card = run_alone([CARD_JOB], min(CARD_LIMIT_S, deadline.left_s), card_gb)[0]
    whole_gib = card.values.get("memory_gib")
    if whole_gib is None:
        if card.missing is None:
            _say("torch finds no GPU, although nvidia-smi does: install its CUDA build")
            return _measure_together(on_cpu(sizes), deadline)
        whole_gib = _driver_gib()
    plan = on_card(min(whole_gib, card_gb or whole_gib), sizes)
    results: list[Result] = []
    for result in _measure_apart(plan, deadline, card_gb):
        results.append(result)
        keep(card, results)
    return card, results


def _measure_apart(plan: Sequence[Measurement], deadline: Deadline, card_gb: float | None) -> Iterator[Result]:
    """Each measurement in a process of its own. A job that two of them share runs once."""
    known: dict[str, Outcome] = {}
    for row in plan:
        if row.job is None:
            yield row, Outcome(missing=row.reason)
            continue
        if row.job.key not in known:
            if deadline.left_s < LEAST_S:
                yield row, Outcome(missing=NO_TIME)
                continue
            _say(f"{row.section}: {row.label} ({deadline.left_s:.0f} s left)")
            known[row.job.key] = run_alone([row.job], min(row.limit_s, deadline.left_s), card_gb)[0]
        yield row, known[row.job.key]


def _measure_together(plan: Sequence[Measurement], deadline: Deadline) -> tuple[Outcome, list[Result]]:
    """All measurements in one process, since no memory of a card is measured."""
    jobs = {job.key: job for job in (CARD_JOB, *(row.job for row in plan if row.job is not None))}
    _say(f"no NVIDIA GPU: {len(jobs)} measurements at toy size on the CPU")
    found = dict(zip(jobs, run_alone(list(jobs.values()), deadline.left_s), strict=True))
    rows = [(row, found[row.job.key] if row.job else Outcome(missing=row.reason)) for row in plan]
    return found[CARD_JOB.key], rows


def _has_card() -> bool:
    return _driver_gib() > 0.0


def _driver_gib() -> float:
    """Memory of the first card that the driver lists; 0 without one."""
    from ratchet.leases.gpus import GIB, list_gpus  # found once the paths are set

    cards = list_gpus()
    return cards[0].memory_bytes / GIB if cards else 0.0


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def as_json(command: str, card: Outcome, results: Sequence[Result]) -> dict[str, Any]:
    """Everything that was found, for programs."""
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "card": asdict(card),
        "measurements": [
            {"section": row.section, "label": row.label, "job": asdict(row.job) if row.job else None, **asdict(outcome)}
            for row, outcome in results
        ],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="most time to take; what is left is not measured")
    parser.add_argument("--card-gb", type=float, help="use at most so many GiB of the card, such as 24")
    parser.add_argument("--steps", type=int, help="training steps; without it 24 on a card, 8 at toy size")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="file to write")
    parser.add_argument("--dry", action="store_true", help="write no file")
    parser.add_argument(CHILD, nargs=2, type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = _arguments()
    if options.child:
        child_main(*options.child)
        return
    for path in paths():
        sys.path.append(path)
    sizes = Sizes(options.steps, options.steps) if options.steps else Sizes()
    command = f"python -m benchmarks.gpu.run {shlex.join(sys.argv[1:])}".strip()

    def keep(card: Outcome, results: Sequence[Result]) -> None:
        if not options.dry:
            options.json.write_text(json.dumps(as_json(command, card, results), indent=2) + "\n", encoding="utf-8")

    card, results = measure(Deadline(options.minutes), sizes, options.card_gb, keep)
    print(report(command, card, results))
    keep(card, results)


if __name__ == "__main__":
    main()
