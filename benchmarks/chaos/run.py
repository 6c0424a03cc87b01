"""Chaos by the thousand: faults strike a running `ratchet run` of the tiny model, one a round.

    python -m benchmarks.chaos.run --rounds 1000 --journal build/chaos   # goes on where the journal ends; `make chaos`
    python -m benchmarks.chaos.run --list                                # the faults, and what is not possible here

Each round strikes, heals, waits until all parts work again, and checks the invariants (invariants.py) from the ledger.
Over a window of rounds there must be new verdicts and a new checkpoint. The exit code is 1 if an invariant was broken
in any round of the journal; the line of that round has the evidence, and the logs are kept in its folder.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from itertools import islice
from pathlib import Path
from textwrap import fill

import httpx
import psutil
from ratchet.errors import RatchetError
from redis.exceptions import RedisError

from benchmarks.chaos.faults.catalogue import FAULTS
from benchmarks.chaos.faults.fault import Fault
from benchmarks.chaos.invariants import Invariants
from benchmarks.chaos.journal import Journal, Round
from benchmarks.chaos.live_run import LiveRun, Stuck
from benchmarks.chaos.plan import plan
from benchmarks.chaos.segments import SEGMENTS

SMOKE = ("--rounds", "3", "--repeats", "1", "--faults", "worker killed,redis flushed,streams deleted")
"""Arguments of its smallest size, with which a test runs it to its end."""
ROUNDS = int(os.environ.get("RATCHET_CHAOS_ROUNDS", "1000"))
REPEATS = 3
RESULTS = Path(__file__).with_name("RESULTS.md")
TROUBLE = (RatchetError, OSError, RedisError, httpx.HTTPError, psutil.Error, subprocess.SubprocessError)
WINDOW = 25
PROGRESS_S = 300.0
"""A window of rounds without a new verdict or checkpoint gets this long to make one without faults."""


class Stage:
    """The live run of the segment that is on, changed as the plan asks for."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._segment: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stack that runs, if any."""
        self._segment = None
        self._stack.close()

    def of(self, segment: str) -> tuple[LiveRun, Invariants, Window]:
        """The segment's stack, started if it is not the one that runs. Raises Stuck if it does not start."""
        if segment != self._segment:
            self.close()
            folder = self._folder / segment.replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            run = self._stack.enter_context(SEGMENTS[segment].open(folder))
            self._segment, self._now = segment, (run, Invariants(run), Window(run))
        return self._now


class Window:
    """Demands new verdicts and a new checkpoint in every WINDOW rounds."""

    def __init__(self, run: LiveRun):
        self._run, self._rounds = run, 0
        self._before = run.made()

    def check(self) -> list[str]:
        self._rounds += 1
        if self._rounds % WINDOW:
            return []
        deadline = time.monotonic() + PROGRESS_S
        while not self._has_moved() and time.monotonic() < deadline:
            self._run.keep_running()
            time.sleep(1.0)
        broken = [] if self._has_moved() else [f"no progress since {self._before} verdicts and checkpoints"]
        self._before = self._run.made()
        return broken

    def _has_moved(self) -> bool:
        return all(now > before for now, before in zip(self._run.made(), self._before, strict=True))


def play(stage: Stage, number: int, fault: Fault, seed: int) -> Round:
    """One round."""
    run, invariants, window = stage.of(fault.segment)
    began, dice, broken = time.monotonic(), random.Random(f"{seed}/{number}"), list[str]()
    did, recovered_s = "", 0.0
    try:
        did = fault.strike(run, dice)
        recovered_s = run.wait_works()
        broken += invariants.check()
        broken += window.check()
    except (Stuck, *TROUBLE) as error:
        broken.append(f"{type(error).__name__}: {error}")
        stage.close()  # the next round gets a fresh stack
    verdicts, checkpoints = _made(run)
    took_s = time.monotonic() - began
    return Round(number, fault.segment, fault.name, did, recovered_s, took_s, verdicts, checkpoints, broken)


def _made(run: LiveRun) -> tuple[int, int]:
    try:
        return run.made()
    except RatchetError:
        return 0, 0


def possible(names: Sequence[str]) -> list[Fault]:
    """The faults of these names (all without any) that this machine can do; says which others it cannot."""
    unknown = set(names) - {fault.name for fault in FAULTS}
    if unknown:
        sys.exit(f"there is no fault {', '.join(sorted(unknown))}; --list shows them")
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    lacking = {name: SEGMENTS[name].lacks() for name in dict.fromkeys(fault.segment for fault in chosen)}
    for name, lacks in lacking.items():
        if lacks is not None:
            skipped = ", ".join(fault.name for fault in chosen if fault.segment == name)
            print(f"skipped: {skipped} ({lacks})", flush=True)
    return [fault for fault in chosen if lacking[fault.segment] is None]


@contextmanager
def journal_folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ratchet-chaos-") as folder:
        yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds in all, with those of the journal")
    parser.add_argument("--journal", type=Path, help="folder of the journal and of the homes; default: a temporary one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after this long")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="rounds of each fault in one visit of its stack")
    parser.add_argument("--faults", default="", help="names of faults, separated by commas; default: all")
    parser.add_argument("--write", action="store_true", help="write the rounds of the journal to RESULTS.md")
    parser.add_argument("--list", action="store_true", help="print the faults, and end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stack ends, and a small disk is unmounted
    faults = possible([name.strip() for name in arguments.faults.split(",") if name.strip()])
    if arguments.list:
        print("\n".join(f"{fault.segment:<10} {fault.name}" for fault in faults))
        return 0
    with journal_folder(arguments.journal) as folder:
        journal = Journal(folder, arguments.seed)
        try:
            rounds(journal, faults, folder, arguments.rounds, arguments.repeats, 60.0 * arguments.minutes)
        except KeyboardInterrupt:
            print("stopped; the same journal goes on from here", flush=True)
        except Stuck as error:
            sys.exit(f"a stack does not start: {error}; its logs are in {folder}")
        found = report(journal)
        print(f"\n{found}")
        if arguments.write:
            RESULTS.write_text(f"# Chaos rounds\n\n{found}\n")
        for each in journal.broken():
            print(f"round {each.number}, {each.fault}: " + "; ".join(each.broken), file=sys.stderr)
        return 1 if journal.broken() else 0


def report(journal: Journal) -> str:
    """What the journal says, as Markdown."""
    number, broken = len(journal.rounds), journal.broken()
    mean_s = sum(each.seconds for each in journal.rounds) / max(number, 1)
    rounds_of = ", ".join(f"round {each.number} ({each.fault}): {'; '.join(each.broken)}" for each in broken)
    return (
        fill(
            f"{date.today()}, {os.cpu_count()} cores, seed {journal.seed}: {number} rounds, {mean_s:.1f} s a round in "
            f"the mean, {len(broken)} with a broken invariant{': ' if broken else '.'}{rounds_of}",
            width=120,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + f"\n\n{journal.table()}"
    )


def rounds(journal: Journal, faults: Sequence[Fault], folder: Path, wanted: int, repeats: int, limit_s: float) -> None:
    """Play the rounds that the journal lacks, as far as time allows."""
    done, ends_at = len(journal.rounds), time.monotonic() + limit_s
    print(f"chaos: seed {journal.seed}, rounds {done + 1} to {wanted}, {len(faults)} faults, in {folder}", flush=True)
    with Stage(folder) as stage:
        for number, fault in enumerate(islice(plan(faults, journal.seed, repeats), done, wanted), done + 1):
            if time.monotonic() > ends_at:
                print("the time is over; the same journal goes on from here", flush=True)
                return
            journal.add(play(stage, number, fault, journal.seed))
            print(journal.rounds[-1].line(wanted), flush=True)


if __name__ == "__main__":
    sys.exit(main())
