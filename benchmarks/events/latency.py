"""From an event to the handler it wakes, against bare Celery on the same Redis in the same run.

    python -m benchmarks.events.latency [--samples 1000]

Ours: an event is published, and the first line of another worker's system (its ``find``) runs. Bare Celery:
``apply_async``, and the first line of the task runs. Topic exchange: an ordinary task is published under the event's
name as its routing key, each subscriber's queue is bound to that key, and the publisher keeps its producer. Pool,
settings and Redis are the same. Samples alternate, one at a time, with short pauses. The publisher and all handlers
read the machine's one monotonic clock.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from celery import Celery
from kombu import Producer
from ratchet.bus.celery_app import broker_app
from ratchet.bus.connection import connect
from ratchet.bus.streams import EventRecord, Streams
from ratchet.events import Event
from ratchet.events.catalogue import BatchQueued, BatchRejected
from ratchet.ledger import Ledger, health
from ratchet.settings.control import ControlSettings

from tests.support.workers import Stack, real_workers

SUBSCRIBERS = 5
SYSTEM = """
import os, time
from ratchet.events import Event
from ratchet.events.catalogue import BatchQueued, BatchRejected
from ratchet.systems import Lane, System

PIPE = os.open(os.environ["BENCH_PIPE"], os.O_WRONLY)


def find(session, settings):
    os.write(PIPE, f"{{time.monotonic()!r}}\\n".encode())
    return []


def do(work):
    raise AssertionError("find finds nothing")


LANE = Lane("look", consumes=({consumes},), find=find, do=do)
SYSTEM = System("{name}", "3090", "Notes when it is woken.", emits=(), sweep_s=1e9, lanes=(LANE,))
"""
CELERY = """
import os, sys, time
from kombu import Exchange, Queue
from ratchet.bus.celery_app import broker_app

url, name, routing_key = sys.argv[1:]
app = broker_app(url)
app.conf.task_queues = [Queue(name, Exchange("bench.events", "topic"), routing_key) if routing_key else Queue(name)]
PIPE = os.open(os.environ["BENCH_PIPE"], os.O_WRONLY)


@app.task(name="bench")
def bench():
    os.write(PIPE, f"{time.monotonic()!r}\\n".encode())


app.Worker(pool="threads", concurrency=1, queues=[name], without_gossip=True, without_mingle=True,
           without_heartbeat=True, loglevel="WARNING", quiet=True).start()
"""
BARE, TOPIC = "bench", "bench.events"
QUIET = ControlSettings(timer_s=1e6, liveness_s=1e6)
"""No canaries, sweeps or timers: nothing but the samples."""
SMOKE = ("--samples", "2")
"""Arguments of its smallest size, with which a test runs it to its end."""
WARM_UP = 20
"""Samples of each way that are not counted: they warm up connections and code."""
START_S = 120.0
HANDLER_S = 30.0
"""A handler that has not run by then never will: the benchmark ends and names the workers that fail."""


class Pipe:
    """Moments of the handlers, one a line."""

    def __init__(self, path: Path):
        os.mkfifo(path)
        self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""

    def take(self, count: int, timeout_s: float = HANDLER_S) -> list[float]:
        """The next moments. Raises TimeoutError where they do not come."""
        deadline = time.monotonic() + timeout_s
        while self._unread.count(b"\n") < count:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._handle], [], [], left_s)[0]:
                raise TimeoutError(f"{count} handlers were to run within {timeout_s:.0f} s, and did not")
            self._unread += os.read(self._handle, 65_536)
        *lines, self._unread = self._unread.split(b"\n", count)
        return [float(line) for line in lines]

    def drain(self) -> None:
        """Forget what has come until now."""
        self._unread = b""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._handle, 65_536):
                pass


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
            try:
                pipe.take(len(names), START_S)  # every worker runs its lane once at its start
                with celery_workers(stack.redis.url) as app:
                    wait_for_all(app, pipe)
                    measure(stack, app, pipe, samples)
            except TimeoutError as error:
                sys.exit(f"{error}\n{failures(stack)}")


@contextlib.contextmanager
def celery_workers(url: str) -> Iterator[Celery]:
    """Celery's workers, one for bare tasks and those bound to the topic exchange, and an application to send with."""
    queues = {BARE: "", "topic_single": BatchRejected.name}
    queues |= {f"topic_five_{number}": BatchQueued.name for number in range(SUBSCRIBERS)}
    processes = [
        subprocess.Popen([sys.executable, "-c", CELERY, url, queue, key], stdout=subprocess.DEVNULL)
        for queue, key in queues.items()
    ]
    try:
        yield broker_app(url)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def publish_to_topic(app: Celery, producer: Producer, event: type[Event]) -> None:
    app.send_task("bench", kwargs={}, exchange=TOPIC, routing_key=event.name, producer=producer)


def wait_for_all(app: Celery, pipe: Pipe) -> None:
    """Until each Celery worker has run a task. A topic loses what is published before its queues are bound."""
    app.send_task("bench", queue=BARE)
    pipe.take(1, START_S)
    deadline = time.monotonic() + START_S
    with app.producer_pool.acquire() as producer:
        for event, subscribers in ((BatchRejected, 1), (BatchQueued, SUBSCRIBERS)):
            while time.monotonic() < deadline:
                publish_to_topic(app, producer, event)
                try:
                    pipe.take(subscribers, 2.0)
                    break
                except TimeoutError:
                    continue
    time.sleep(2.0)
    pipe.drain()


def failures(stack: Stack) -> str:
    """What the workers say that fail."""
    with stack.ledger.read() as session:
        failed = health.failing_workers(session, stack.ledger.now())
        return "\n".join(f"{worker.name} has failed:\n{worker.error}" for worker in failed)


def write_systems(folder: Path) -> list[str]:
    """One system that consumes batch.rejected alone; five that consume batch.queued together."""
    folder.mkdir()
    (folder / "__init__.py").touch()
    consumes = {"single": "BatchRejected", **{f"five_{number}": "BatchQueued" for number in range(SUBSCRIBERS)}}
    for name, event in consumes.items():
        (folder / f"{name}.py").write_text(SYSTEM.format(name=name, consumes=event))
    return list(consumes)


def measure(stack: Stack, app: Celery, pipe: Pipe, samples: int) -> None:
    streams = Streams(connect(stack.redis.url))
    producer = app.producer_pool.acquire()
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "bare Celery, apply_async": (lambda: app.send_task("bench", queue=BARE), 1),
        "topic exchange, one subscriber": (lambda: publish_to_topic(app, producer, BatchRejected), 1),
        "ours, one subscriber": (lambda: streams.publish([EventRecord.of(BatchRejected(batch_id="b", reason="r"))]), 1),
        "topic exchange, each of five": (lambda: publish_to_topic(app, producer, BatchQueued), SUBSCRIBERS),
        "ours, each of five": (lambda: streams.publish([EventRecord.of(BatchQueued(batch_id="b"))]), SUBSCRIBERS),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    publishing: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(samples + WARM_UP):
        for name, (publish, handlers) in ways.items():
            time.sleep(random.uniform(0.005, 0.015))
            started = time.monotonic()
            publish()
            published = time.monotonic()
            moments = pipe.take(handlers)
            if number >= WARM_UP:
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
