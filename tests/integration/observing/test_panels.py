"""Every panel's query is answered by a real Prometheus that has scraped a worker's page and the hub's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from ratchet.artifacts import ArtifactStore
from ratchet.bus.connection import connect
from ratchet.bus.streams import EventRecord, Streams
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger
from ratchet.metrics.hub import discovery
from ratchet.metrics.training_status import TrainingCollector
from ratchet.metrics.worker import WorkerMetrics
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.controller import Controller
from trainer.monitoring import TrainingStatusWriter

from tests.support.bus import InlineChildren
from tests.support.observed import served
from tests.support.prometheus import Prometheus, panels, prometheus_server
from tests.support.workers import wait_until

DASHBOARDS = Path(__file__).parents[3] / "compose" / "grafana" / "dashboards"
PATIENCE_S = 180.0


def worked(ledger: Ledger, settings: Settings) -> CollectorRegistry:
    """The page of a worker that has read an event and decided on a subject."""

    def play(_work: Work) -> Outcome:
        return Verdict("fine", "it is")

    lane = Lane("play", (BatchQueued,), lambda *_: [Subject("toy", "one")], play)
    system = System("training", "4090", "Plays.", emits=(), sweep_s=60.0, lanes=(lane,))
    store = ArtifactStore(f"file://{settings.home}/artifacts")
    controller = Controller(system, settings, ledger, store, InlineChildren(), "training@box+0")
    registry = CollectorRegistry()
    metrics = WorkerMetrics(controller, registry)
    controller.observers.append(metrics)
    event = BatchQueued(batch_id="b")
    metrics.received(event)
    controller.run_pending("play", event.id)
    registry.register(TrainingCollector(settings))
    return registry


def told_of_training(settings: Settings) -> None:
    settings.status_folder.mkdir(parents=True, exist_ok=True)
    status = TrainingStatusWriter(settings.status_folder / "training_status.json")
    status.start(state="training", step=1, loss=0.5, tokens_per_s=9.0, examples_done=1, examples_total=2)
    status.write(preview_step=1, preview_correct=3, preview_asked=4)
    streams = Streams(connect(str(settings.redis.url.get_secret_value())), length=10)  # type: ignore[union-attr]
    streams.open("training", [BatchQueued.name])
    streams.publish([EventRecord.of(BatchQueued(batch_id="b"))])


def others(settings: Settings) -> str:
    """What the inference server and a machine's exporters show, on one page."""
    disk, card = '{device="/dev/sda",fstype="ext4",mountpoint="/"}', '{uuid="e5a1"}'
    disks = f"node_filesystem_avail_bytes{disk} 5\nnode_filesystem_size_bytes{disk} 10\n"
    names = ("memory_used_bytes", "memory_total_bytes", "power_draw_watts", "utilization_gpu_ratio")
    cards = "".join(f"nvidia_smi_{name}{card} 1\n" for name in names) + f"nvidia_smi_temperature_gpu{card} 61\n"
    return served(settings).page().decode() + disks + cards


class Page(Collector):
    """A page of text, read again as families."""

    def __init__(self, text: str):
        self._text = text

    def collect(self) -> Iterator[Metric]:
        yield from text_string_to_metric_families(self._text)


@pytest.fixture(scope="module")
def prometheus(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    ledger = Ledger(settings.ledger_url)
    told_of_training(settings)
    registry = worked(ledger, settings)
    exporters = CollectorRegistry()
    exporters.register(Page(others(settings)))
    pages = [start_http_server(0, "127.0.0.1", of)[0] for of in (registry, exporters)]
    worker, machine = (f"127.0.0.1:{page.server_port}" for page in pages)
    names = {"system": "training", "worker": "training@box+0", "host": "box"}
    with discovery(settings, "127.0.0.1", 0) as hub:
        config: dict[str, Any] = {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
            "scrape_configs": [
                {"job_name": "ratchet", "static_configs": [{"targets": [worker], "labels": names}]},
                {"job_name": "machine", "static_configs": [{"targets": [machine], "labels": {"host": "box"}}]},
                {"job_name": "hub", "static_configs": [{"targets": [f"127.0.0.1:{hub.server_port}"]}]},
            ],
        }
        with prometheus_server(tmp_path_factory.mktemp("prometheus"), config) as server:
            yield server
    for page in pages:
        page.shutdown()
        page.server_close()
    ledger.close()


def test_every_panel_query_returns_data(prometheus: Prometheus) -> None:
    wanted = panels(DASHBOARDS)
    assert len(wanted) > 40
    assert prometheus.unanswered(wanted, PATIENCE_S, without=()) == []


def test_the_panels_show_the_numbers_of_the_ledger(prometheus: Prometheus) -> None:
    def value(expr: str) -> float:
        wait_until(lambda: bool(prometheus.query(expr)), PATIENCE_S, expr)
        return float(prometheus.query(expr)[0]["value"][1])

    assert value("sum(ratchet_queue_examples)") == 20_800
    assert value('max(ratchet_accuracy_overall_ratio{role="champion"})') == pytest.approx(129 / 300)
    assert value("max(nvidia_smi_temperature_gpu)") == 61
    assert value('sum(ratchet_verdicts_total{outcome="fine"})') == 1
