"""Flower shows the workers, and the tasks that wake a system, if task events are on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from ratchet.bus.celery_app import broker_app, wake
from ratchet.ports import free_port

from tests.support.playground import Open
from tests.support.toys.catching import SYSTEM
from tests.support.workers import wait_until

PATIENCE_S = 180.0


def test_a_wake_up_is_visible_as_a_celery_task(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", task_events=True)
    app, stop = broker_app(playground.stack.redis.url), threading.Event()
    seen: list[dict[str, Any]] = []
    watcher = threading.Thread(target=_watch, args=(app, seen, stop))
    watcher.start()
    try:
        wait_until(lambda: _types(seen) >= {"worker-heartbeat"}, what="heartbeats")
        playground.throw("ball")
        playground.wait_counted("ball")
        wake(playground.stack.settings, SYSTEM)
        wait_until(lambda: "3090.catching" in _names(seen), what="the task by its name")
        wait_until(lambda: _types(seen) >= {"task-received", "task-started", "task-succeeded"}, what="a task's life")
    finally:
        stop.set()
        watcher.join()
        app.close()
    received = [event for event in seen if event["type"] == "task-received"]
    assert {event["name"] for event in received} <= {"3090.catching", "4090.counting", "ratchet.canary"}
    assert playground.verdict_worker("ball") in {event["hostname"] for event in seen}


def test_flower_shows_workers_and_tasks_by_name_after_login(open_playground: Open, tmp_path: Path) -> None:
    playground = open_playground("catching", "counting", task_events=True)
    with _flower(playground.stack.redis.url, tmp_path / "flower.log") as flower:
        wait_until(lambda: _queues(flower) >= {"3090.catching", "4090.counting"}, PATIENCE_S, "both workers")
        playground.throw("ball")
        playground.wait_counted("ball")
        wake(playground.stack.settings, SYSTEM)
        wait_until(lambda: "3090.catching" in _task_names(flower), PATIENCE_S, "the task by its name")
        assert httpx.get(f"{flower.base_url}/api/workers").status_code == 401
        assert httpx.get(f"{flower.base_url}/healthcheck").status_code == 200
    assert playground.verdict_worker("ball").startswith("catching@")


@contextmanager
def _flower(broker: str, log: Path) -> Iterator[httpx.Client]:
    """The real Flower on the loopback interface, and a client that is logged in."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "flower", "--address=127.0.0.1", f"--port={port}", "--persistent=False"]
    environment = {**os.environ, "CELERY_BROKER_URL": broker, "FLOWER_BASIC_AUTH": "admin:secret"}
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("admin", "secret"), timeout=60.0) as client:
                yield client
        finally:
            process.kill()


def _queues(flower: httpx.Client) -> set[str]:
    """The queues of the workers that Flower has found; it answers 404 while there are none."""
    try:
        answer = flower.get("/api/workers", params={"refresh": 1})
    except httpx.TransportError:
        return set()
    workers = answer.json().values() if answer.status_code == 200 else ()
    return {queue["name"] for worker in workers for queue in worker.get("active_queues", ())}


def _task_names(flower: httpx.Client) -> set[str]:
    return {task["name"] for task in flower.get("/api/tasks").json().values()}


def _watch(app: Any, seen: list[dict[str, Any]], stop: threading.Event) -> None:
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        while not stop.is_set():
            try:
                receiver.capture(limit=None, timeout=0.5, wakeup=False)
            except TimeoutError:
                continue


def _types(seen: list[dict[str, Any]]) -> set[str]:
    return {event["type"] for event in seen}


def _names(seen: list[dict[str, Any]]) -> set[str]:
    return {event["name"] for event in seen if event["type"] == "task-received"}
