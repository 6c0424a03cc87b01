"""One worker: a process that runs one system. ``python -m ratchet.worker SYSTEM``, or ``run_worker`` after a fork.

It assembles the parts: lanes with their controller, wakeups, Celery, liveness checks, registration and metrics.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from celery import Celery
from celery.signals import setup_logging, worker_ready, worker_shutting_down
from kombu import Queue

from ratchet.artifacts.artifact_store import artifact_store
from ratchet.backoff import FIRST_S, Backoff, retry
from ratchet.build import Build
from ratchet.bus.celery_app import broker_app
from ratchet.bus.connection import connect, redis_url
from ratchet.bus.streams import Relay, Streams
from ratchet.disk import keep_private
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.leases.slots import WorkerName, claim_name
from ratchet.ledger import Ledger
from ratchet.logs import log_json
from ratchet.plugins import require_plugins
from ratchet.processes.child_runner import ChildRunner
from ratchet.processes.messages import Channel
from ratchet.settings import Settings
from ratchet.systems import registry
from ratchet.systems.controller import Controller
from ratchet.systems.system import System
from ratchet.worker.consumer import PatientConsumer
from ratchet.worker.housekeeping import Housekeeping
from ratchet.worker.lanes import Lanes
from ratchet.worker.liveness import Canary, Liveness, alive_path
from ratchet.worker.registration import Registration, StatusFile, has_ledger, record_failure
from ratchet.worker.stopping import Stopper
from ratchet.worker.wakeups import Listener, Sweep, send_sweep

if TYPE_CHECKING:
    from ratchet.metrics.worker import MetricsPage

log = logging.getLogger(__name__)

T = TypeVar("T")

EXIT_REFUSED = 78


def run_worker(
    system_name: str, settings: Settings, log_folder: Path | None = None, *, fork_server: Channel | None = None
) -> int:
    """Run the system until asked to stop; returns the exit code. ``fork_server`` is one that several workers share.

    With a ledger of another schema it exits with code 78. While the ledger or Redis is unavailable it waits. Any other
    error, such as a system that cannot be imported or a plug-in that is not installed, is written to the worker's row
    in the ledger before it is raised.
    """
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    try:
        system = registry.get(system_name)
        require_plugins(settings)
    except Exception as error:
        if has_ledger(settings):  # else there is no row to write to, and opening one would create it
            with _named(system_name, settings, log_folder) as name:
                _report_failure(settings, name, error)
        raise
    with _named(system_name, settings, log_folder) as name:
        try:
            return _Worker(system, settings, str(name), fork_server).run()
        except PreconditionFailed as error:
            log.critical("%s", error)
            record_failure(settings, name, str(error))
            return EXIT_REFUSED
        except Exception as error:
            _report_failure(settings, name, error)
            raise


@contextmanager
def _named(system_name: str, settings: Settings, log_folder: Path | None) -> Iterator[WorkerName]:
    """The worker's name, locked while the block runs. Logs are written under this name."""
    keep_private(settings.home)
    name = claim_name(system_name, settings.placement.machine, settings.lease_folder)
    try:
        log_json(str(name), log_folder)
        yield name
    finally:
        name.release()


def _report_failure(settings: Settings, name: WorkerName, error: Exception) -> None:
    log.critical("this worker has failed: %s", error, exc_info=error)
    record_failure(settings, name, "".join(traceback.format_exception(error)))


class _Worker:
    """The assembled parts of one worker."""

    def __init__(self, system: System, settings: Settings, worker: str, fork_server: Channel | None):
        self.ledger = Ledger(settings.ledger_url)
        self.metrics = _metrics_page(settings)
        url = self.metrics.url if self.metrics is not None else None
        self.registration = Registration(self.ledger, system, worker, settings, url)
        _once_available(self.registration.enter, settings)
        redis = _once_available(lambda: redis_url(settings), settings)
        streams = Streams(connect(redis))
        relay = Relay(self.ledger, streams)
        self.ledger.after_commit = relay
        self.children = ChildRunner(system.preload, threads=settings.placement.threads, shared=fork_server)
        self.controller = Controller(system, settings, self.ledger, artifact_store(settings), self.children, worker)
        self.lanes = Lanes(self.controller)
        self.app = worker_app(redis, system, worker, self.lanes, watched=settings.control.task_events)
        canary = Canary(self.app, worker)
        self.stopper = Stopper(self.controller, report=self.registration.stopping)
        self.status = StatusFile(_status_path(settings, system, worker), self.controller, lambda: self.stopper.left_s)
        self.controller.observers.append(self.status)
        self.registration.follow(self.controller)
        if self.metrics is not None:
            self.metrics.follow(self.controller)
        liveness = Liveness(settings.control, self.controller, canary, alive_path(settings, worker))
        self.threads = [
            *self.lanes.threads(),
            Listener(streams, self.ledger, self.lanes),
            Sweep(
                self.ledger,
                relay,
                self.lanes,
                wake_by_task=lambda: send_sweep(
                    self.app, system.queue, worker, expires_s=system.sweep_s * settings.control.sweep_factor
                ),
                seen=self.registration.seen,
                refused=_end_refused,
                check_liveness=liveness.check,
            ),
            liveness,
            Housekeeping(self.controller),
            self.status,
            self.stopper,
        ]

    def run(self) -> int:
        """Run Celery's worker in this thread until it ends, beside the other threads; returns its exit code."""
        controller, events = self.controller, self.controller.settings.control.task_events
        worker_shutting_down.connect(self.stopper.asked)
        celery_worker = self.app.Worker(
            hostname=controller.worker,
            consumer_cls=PatientConsumer,
            pool="solo",  # a task only wakes a lane, so it can run in Celery's own loop
            concurrency=1,
            queues=[controller.system.queue, controller.worker],
            task_events=events,
            without_heartbeat=not events,
            without_gossip=True,
            without_mingle=True,
            loglevel="WARNING",
            quiet=True,
        )
        log.info("%s", greeting(controller.system, controller.settings))
        try:  # from the first thread on: until Celery handles SIGTERM, it raises SystemExit here
            for thread in self.threads:
                thread.start()
            celery_worker.start()
        finally:
            controller.stop.set()
            controller.reschedule.set()
            self.lanes.wait_stopped()
            self.children.close()
            self.status.close()
            self.registration.leave()
            if self.metrics is not None:
                self.metrics.close()
        return celery_worker.exitcode or 0


def worker_app(url: str, system: System, worker: str, lanes: Lanes, *, watched: bool = False) -> Celery:
    """An application with the system's task and queue, and the worker's own queue for its canary and sweep.

    ``watched``: it answers Flower's inspection.
    """
    app = broker_app(url)
    app.conf.worker_enable_remote_control = watched
    app.conf.task_queues = (Queue(system.queue), Queue(worker))
    app.conf.task_default_queue = system.queue

    @app.task(name=system.queue, shared=False)
    def wake(lane: str | None = None, cause: str | None = None) -> None:
        if lane is None:
            lanes.wake_all()
        else:
            lanes.wake(lane, cause)

    return app


def _end_refused(error: PreconditionFailed) -> None:
    """Stop normally, saving the work. The worker cannot start again until this host is upgraded."""
    log.critical("%s", error)
    os.kill(os.getpid(), signal.SIGTERM)


def greeting(system: System, settings: Settings) -> str:
    """The first line of a worker's log: build, ledger, artifacts and wakeups, without passwords."""
    ledger = urlsplit(settings.ledger_url)
    where = f"{ledger.hostname}:{ledger.port}" if ledger.hostname else ledger.path.removeprefix("/")
    build = Build.of(system.lanes[0].do.__module__)
    events = ", ".join(event.name for event in system.consumes) or "no event"
    sweep = f"a sweep every {system.sweep_s * settings.control.sweep_factor:.0f} s"
    return f"runs {build}; ledger at {where}, artifacts at {settings.artifact_url}; woken by {events}, and by {sweep}"


def _metrics_page(settings: Settings) -> MetricsPage | None:
    if not settings.metrics.port:
        return None
    from ratchet.metrics.worker import MetricsPage  # a worker without metrics saves these imports

    return _once_available(lambda: MetricsPage(settings), settings)


def _once_available(step: Callable[[], T], settings: Settings) -> T:
    """Repeat a step of the start until the ledger, Redis or a port is available."""
    backoff = Backoff(FIRST_S, settings.control.max_backoff_s)
    return retry(step, backoff, (TransientError,))


def _status_path(settings: Settings, system: System, worker: str) -> Path:
    """The status file. The first worker of a system has the plain name; further ones add their slot."""
    settings.status_folder.mkdir(parents=True, exist_ok=True)
    slot = worker.rpartition("+")[2]
    return settings.status_folder / (f"{system.name}.json" if slot == "0" else f"{system.name}+{slot}.json")


@setup_logging.connect
def _leave_logging_alone(**_options: Any) -> None:
    """Connected to a Celery signal: Celery then does not configure logging."""


@worker_ready.connect
def _treat_interrupt_as_term(**_options: Any) -> None:
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
