from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from ratchet.artifacts import ArtifactStore
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger
from ratchet.metrics.worker import MetricsPage, WorkerMetrics
from ratchet.ports import free_port
from ratchet.settings import Settings
from ratchet.systems import Lane, NotReady, Outcome, Subject, System, Verdict, Work
from ratchet.systems.controller import Controller

from tests.support.bus import InlineChildren
from tests.support.scrape import Scrape


def play(work: Work) -> Outcome:
    match work.subject.id:
        case "early":
            return NotReady("a toy")
        case "broken":
            raise ValueError("it broke")
        case _:
            return Verdict("fine", "it is")


@pytest.fixture
def controller(ledger: Ledger, settings: Settings, tmp_path: Path) -> Controller:
    lane = Lane("play", (BatchQueued,), lambda *_: [Subject("toy", i) for i in ("one", "two", "early", "broken")], play)
    system = System("toys", "3090", "Plays.", emits=(), sweep_s=60.0, lanes=(lane,))
    store = ArtifactStore(f"file://{tmp_path}/artifacts")
    return Controller(system, settings, ledger, store, InlineChildren(), "toys@here+0")


def scrape(metrics: WorkerMetrics) -> Scrape:
    return Scrape(generate_latest(metrics.registry).decode())


def test_known_label_values_begin_at_zero(controller: Controller) -> None:
    found = scrape(WorkerMetrics(controller, CollectorRegistry()))
    assert found.value("ratchet_claims_total", lane="play") == 0
    assert found.value("ratchet_failures_total", lane="play") == 0
    assert found.value("ratchet_events_consumed_total", event="batch.queued") == 0
    assert found.value("ratchet_working", lane="play") == 0
    assert found["process_resident_memory_bytes"] > 0


def test_the_work_of_a_lane_is_counted(controller: Controller) -> None:
    metrics = WorkerMetrics(controller, CollectorRegistry())
    controller.observers.append(metrics)
    controller.run_pending("play")
    found = scrape(metrics)
    assert found.value("ratchet_claims_total", lane="play") == 4
    assert found.value("ratchet_verdicts_total", outcome="fine") == 2
    assert found.value("ratchet_not_ready_total", lane="play") == 1
    assert found.value("ratchet_failures_total", kind="error") == 1
    assert found.value("ratchet_work_seconds_count", lane="play") == 3


def test_an_event_is_timed_once_until_its_lane_starts(controller: Controller) -> None:
    metrics = WorkerMetrics(controller, CollectorRegistry())
    controller.observers.append(metrics)
    event = BatchQueued(batch_id="b")
    metrics.received(event)
    controller.run_pending("play", event.id)
    controller.run_pending("play", event.id)
    controller.run_pending("play", None)
    found = scrape(metrics)
    assert found.value("ratchet_events_consumed_total", event="batch.queued") == 1
    assert found["ratchet_event_to_start_seconds_count"] == 1


def test_a_working_lane_is_exported(controller: Controller) -> None:
    metrics, seen = WorkerMetrics(controller, CollectorRegistry()), threading.Event()
    values: list[float] = []

    def watched(work: Work) -> Outcome:
        values.append(scrape(metrics).value("ratchet_working", lane="play"))
        seen.set()
        return play(work)

    lane = Lane("play", (), lambda *_: [Subject("toy", "one")], watched)
    controller.system = System("toys", "3090", "Plays.", emits=(), sweep_s=60.0, lanes=(lane,))
    controller.run_pending("play")
    assert seen.is_set()
    assert values == [1.0]


@pytest.mark.parametrize(
    ("metrics", "url"),
    [
        ({"host": "127.0.0.1"}, "http://127.0.0.1:{port}/metrics"),
        ({"host": "0.0.0.0"}, "http://box:{port}/metrics"),
        ({"host": "0.0.0.0", "address": "10.0.0.7"}, "http://10.0.0.7:{port}/metrics"),
        ({"host": "0.0.0.0", "address": "10.0.0.7:9207"}, "http://10.0.0.7:9207/metrics"),
    ],
)
def test_the_registered_address_is_reachable_for_prometheus(
    settings: Settings, metrics: dict[str, str], url: str
) -> None:
    home = settings.home
    page = MetricsPage(Settings(home=home, placement={"machine": "box"}, metrics={"port": 0, **metrics}))
    assert page.url == url.format(port=page.port)
    page.close()


def test_the_first_metrics_port_follows_the_setting(settings: Settings) -> None:
    port = free_port()
    page = MetricsPage(Settings(home=settings.home, metrics={"port": port}))
    page.close()
    assert port <= page.port < port + 20


def test_the_next_worker_takes_a_later_port(settings: Settings) -> None:
    port = free_port()
    first, second = (MetricsPage(Settings(home=settings.home, metrics={"port": port})) for _ in range(2))
    assert second.port > first.port
    first.close()
    second.close()


def test_the_page_is_served_before_there_is_a_controller_and_filled_afterwards(
    controller: Controller, settings: Settings
) -> None:
    page = MetricsPage(settings)
    assert Scrape.of(page.url).names() == set()
    page.follow(controller)
    controller.run_pending("play")
    assert Scrape.of(page.url).value("ratchet_claims_total", lane="play") == 4
    page.close()
