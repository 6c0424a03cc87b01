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
SMOKE = ("--samples", "2", "--warm-up", "1", "--subscribers", "2")
"""Arguments of its smallest size, with which a test runs it to its end."""
SUBSCRIBERS = 5
WARM_UP = 20
"""Samples of each way that are not counted: they warm up connections and code."""
SETTLE_S = 0.5
"""After the warm-up: what comes until then is forgotten, such as a second moment of a handler."""
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
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="samples that are not counted")
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS, help="of the event that several consume")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        names = write_systems(home / "bench_systems", options.subscribers)
        pipe = Pipe(home / "pipe")
        os.environ["BENCH_PIPE"] = str(home / "pipe")
        with real_workers(home / "home", names, packages=["bench_systems"], path=[home], control=QUIET) as stack:
            wait_for_workers(stack, pipe, len(names))
            try:
                with celery_workers(stack.redis.url, options.subscribers, pipe) as app:
                    measure(stack, app, pipe, options)
            except TimeoutError as error:
                sys.exit(f"{error}\n{told(failures(stack))}")


def wait_for_workers(stack: Stack, pipe: Pipe, count: int) -> None:
    """Until each worker has run its lane, as it does once at its start. Exits as soon as all of them have failed."""
    failed: dict[str, str] = {}
    deadline = time.monotonic() + START_S
    while len(failed) < count and time.monotonic() < deadline:
        try:
            pipe.take(count, 1.0)
        except TimeoutError:
            failed |= failures(stack)  # kept, since a worker that starts again does not count as failing
        else:
            return
    sys.exit(f"{count} handlers were to run at the start of their workers, and did not\n{told(failed)}")


@contextlib.contextmanager
def celery_workers(url: str, subscribers: int, pipe: Pipe) -> Iterator[Celery]:
    """Celery's workers, one for bare tasks and those bound to the topic exchange, and an application to send with.

    Each has run a task by then. A task waits in a queue for its worker, which binds the queue before it takes the task.
    """
    queues = {BARE: "", "topic_single": BatchRejected.name}
    queues |= {f"topic_many_{number}": BatchQueued.name for number in range(subscribers)}
    processes = [
        subprocess.Popen([sys.executable, "-c", CELERY, url, queue, key], stdout=subprocess.DEVNULL)
        for queue, key in queues.items()
    ]
    try:
        app = broker_app(url)
        for queue in queues:
            app.send_task("bench", queue=queue)
        pipe.take(len(queues), START_S)
        yield app
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def publish_to_topic(app: Celery, producer: Producer, event: type[Event]) -> None:
    app.send_task("bench", kwargs={}, exchange=TOPIC, routing_key=event.name, producer=producer)


def failures(stack: Stack) -> dict[str, str]:
    """What the workers say that fail, by their names."""
    with stack.ledger.read() as session:
        return {worker.name: str(worker.error) for worker in health.failing_workers(session, stack.ledger.now())}


def told(failed: dict[str, str]) -> str:
    return "\n".join(f"{name} has failed:\n{error}" for name, error in failed.items())


def write_systems(folder: Path, subscribers: int) -> list[str]:
    """One system that consumes batch.rejected alone; several that consume batch.queued together."""
    folder.mkdir()
    (folder / "__init__.py").touch()
    consumes = {"single": "BatchRejected", **{f"many_{number}": "BatchQueued" for number in range(subscribers)}}
    for name, event in consumes.items():
        (folder / f"{name}.py").write_text(SYSTEM.format(name=name, consumes=event))
    return list(consumes)


def measure(stack: Stack, app: Celery, pipe: Pipe, options: argparse.Namespace) -> None:
    subscribers = options.subscribers
    many = "five" if subscribers == SUBSCRIBERS else subscribers
    streams = Streams(connect(stack.redis.url))
    producer = app.producer_pool.acquire()
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "bare Celery, apply_async": (lambda: app.send_task("bench", queue=BARE), 1),
        "topic exchange, one subscriber": (lambda: publish_to_topic(app, producer, BatchRejected), 1),
        "ours, one subscriber": (lambda: streams.publish([EventRecord.of(BatchRejected(batch_id="b", reason="r"))]), 1),
        f"topic exchange, each of {many}": (lambda: publish_to_topic(app, producer, BatchQueued), subscribers),
        f"ours, each of {many}": (lambda: streams.publish([EventRecord.of(BatchQueued(batch_id="b"))]), subscribers),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    publishing: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-options.warm_up, options.samples):
        if number == 0:
            time.sleep(SETTLE_S)
            pipe.drain()
        for name, (publish, handlers) in ways.items():
            time.sleep(random.uniform(0.005, 0.015))
            started = time.monotonic()
            publish()
            published = time.monotonic()
            moments = pipe.take(handlers)
            if number >= 0:
                publishing[name].append(published - started)
                found[name] += [moment - started for moment in moments]
    report(found, publishing, commits(stack.ledger, options.samples))


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
