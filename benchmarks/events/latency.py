"""From an event to the handler it wakes, against bare Celery on the same Redis in the same run.

    python benchmarks/events/latency.py [--samples 1000]

Ours: an event is published, and the first line of another worker's system (its ``find``) runs. Bare Celery:
``apply_async``, and the first line of the task runs; pool, settings and Redis are the same. Samples alternate, one at
a time, with short pauses. The publisher and all handlers read the machine's one monotonic clock.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ratchet.bus.broker import broker_app
from ratchet.bus.connection import connect
from ratchet.bus.streams import Letter, Streams
from ratchet.events.catalogue import BatchQueued, BatchRejected
from ratchet.ledger import Ledger
from ratchet.settings.control import ControlSettings
from ratchet.testing.workers import Stack, real_workers

SUBSCRIBERS = 5
SYSTEM = """
import os, time
from ratchet.events.catalogue import BatchQueued, BatchRejected
from ratchet.systems import Lane, System

PIPE = os.open(os.environ["BENCH_PIPE"], os.O_WRONLY)


def find(session, settings):
    os.write(PIPE, f"{{time.monotonic()!r}}\\n".encode())
    return []


LANE = Lane("look", hears=({hears},), find=find, do=None)
SYSTEM = System("{name}", "3090", "Notes when it is woken.", says=(), sweep_s=1e9, lanes=(LANE,))
"""
CELERY = """
import os, sys, time
from ratchet.bus.broker import broker_app

app = broker_app(sys.argv[1])
app.conf.task_default_queue = "bench"
PIPE = os.open(os.environ["BENCH_PIPE"], os.O_WRONLY)


@app.task(name="bench")
def bench():
    os.write(PIPE, f"{time.monotonic()!r}\\n".encode())


app.Worker(pool="threads", concurrency=1, queues=["bench"], without_gossip=True, without_mingle=True,
           without_heartbeat=True, loglevel="WARNING", quiet=True).start()
"""
QUIET = ControlSettings(timer_s=1e6, liveness_s=1e6)
"""No canaries, sweeps or timers: nothing but the samples."""


class Pipe:
    """Moments of the handlers, one a line."""

    def __init__(self, path: Path):
        os.mkfifo(path)
        self._handle = os.open(path, os.O_RDWR)
        self._lines = os.fdopen(self._handle, "rb", buffering=0)

    def take(self, count: int) -> list[float]:
        return [float(self._lines.readline()) for _ in range(count)]

    def drain(self) -> None:
        os.set_blocking(self._handle, False)
        while self._lines.read(65_536):
            pass
        os.set_blocking(self._handle, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    samples = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        names = write_systems(home / "bench_systems")
        pipe = Pipe(home / "pipe")
        os.environ["BENCH_PIPE"] = str(home / "pipe")
        with real_workers(home / "home", names, packages=["bench_systems"], path=[home], control=QUIET) as stack:
            celery = subprocess.Popen([sys.executable, "-c", CELERY, stack.redis.url], stdout=subprocess.DEVNULL)
            try:
                time.sleep(8.0)
                pipe.drain()
                measure(stack, pipe, samples)
            finally:
                celery.terminate()
                celery.wait()


def write_systems(folder: Path) -> list[str]:
    """One system that hears batch.rejected alone; five that hear batch.queued together."""
    folder.mkdir()
    (folder / "__init__.py").touch()
    hears = {"single": "BatchRejected", **{f"five_{number}": "BatchQueued" for number in range(SUBSCRIBERS)}}
    for name, event in hears.items():
        (folder / f"{name}.py").write_text(SYSTEM.format(name=name, hears=event))
    return list(hears)


def measure(stack: Stack, pipe: Pipe, samples: int) -> None:
    streams = Streams(connect(stack.redis.url), 10_000)
    app = broker_app(stack.redis.url)
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "bare Celery, apply_async": (lambda: app.send_task("bench", queue="bench"), 1),
        "ours, one subscriber": (lambda: streams.publish([Letter.of(BatchRejected(batch_id="b", reason="r"))]), 1),
        "ours, each of five": (lambda: streams.publish([Letter.of(BatchQueued(batch_id="b"))]), SUBSCRIBERS),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    publishing: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(samples + 20):
        for name, (publish, handlers) in ways.items():
            time.sleep(random.uniform(0.005, 0.015))
            started = time.monotonic()
            publish()
            published = time.monotonic()
            moments = pipe.take(handlers)
            if number >= 20:  # the first ones warm up connections and code
                publishing[name].append(published - started)
                found[name] += [moment - started for moment in moments]
    report(found, publishing, commits(stack.ledger, samples))


def commits(ledger: Ledger, samples: int) -> list[float]:
    """What committing an event to the ledger takes, its relay left out."""
    relay, ledger.after_commit = ledger.after_commit, None
    taken = []
    for _ in range(samples):
        started = time.monotonic()
        with ledger.write() as tx:
            tx.emit(BatchQueued(batch_id="b"))
        taken.append(time.monotonic() - started)
    ledger.after_commit = relay
    return taken


def report(found: dict[str, list[float]], publishing: dict[str, list[float]], commit: list[float]) -> None:
    bare50, bare99 = quantiles(found["bare Celery, apply_async"])
    print("| way | p50 ms | p99 ms | p50 ratio | p99 ratio | publish call p50 ms |")
    print("|---|---|---|---|---|---|")
    for name, values in found.items():
        p50, p99 = quantiles(values)
        call = statistics.median(publishing[name]) * 1000
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {p50 / bare50:.2f} | {p99 / bare99:.2f} | {call:.2f} |")
    p50, p99 = quantiles(commit)
    print(f"\nLedger commit of an event (SQLite, synchronous=FULL), apart: p50 {p50:.2f} ms, p99 {p99:.2f} ms.")


def quantiles(values: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(values, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


if __name__ == "__main__":
    main()
