"""What an event starts is an ordinary Celery task, which Flower sees where it is asked to."""

from __future__ import annotations

import threading
from typing import Any

from playground import Open
from ratchet.bus.broker import broker_app
from ratchet.testing.workers import wait_until


def test_a_look_that_an_event_started_is_seen_as_a_task(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", task_events=True)
    app, stop = broker_app(playground.stack.redis.url), threading.Event()
    seen: list[dict[str, Any]] = []
    watcher = threading.Thread(target=_watch, args=(app, seen, stop))
    watcher.start()
    try:
        wait_until(lambda: _types(seen) >= {"worker-heartbeat"}, what="heartbeats")
        playground.throw("ball")
        playground.wait_counted("ball")
        wait_until(lambda: _types(seen) >= {"task-received", "task-started", "task-succeeded"}, what="a task's life")
    finally:
        stop.set()
        watcher.join()
        app.close()
    received = [event for event in seen if event["type"] == "task-received"]
    assert {event["name"] for event in received} <= {"3090.catching", "4090.counting", "ratchet.canary"}
    assert "3090.catching" in {event["name"] for event in received}
    assert playground.verdict_worker("ball") in {event["hostname"] for event in seen}


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
