"""The Celery application of one worker: the system's queue, the worker's own for its canary, and the task."""

from __future__ import annotations

from celery import Celery
from kombu import Queue

from ratchet.bus.broker import broker_app
from ratchet.systems.system import System
from ratchet.worker.desk import Desk
from ratchet.worker.step import EventStep


def worker_app(url: str, system: System, worker: str, desk: Desk, *, watched: bool = False) -> Celery:
    """An application whose one task looks in a lane, or in all of them. ``watched``: Flower can ask it things."""
    app = broker_app(url)
    app.conf.worker_enable_remote_control = watched
    app.conf.task_queues = (Queue(system.queue), Queue(worker))
    app.conf.task_default_queue = system.queue
    app.steps["consumer"].add(EventStep)
    app.desk, app.system = desk, system

    @app.task(name=system.queue)
    def look(lane: str | None = None, cause: str | None = None) -> None:
        if lane is None:
            desk.ring_all()
        else:
            desk.look(lane, cause)

    return app
