"""The configuration of Prometheus and Grafana, for the tests that compare it with the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from ratchet.artifacts import ArtifactStore
from ratchet.ledger import Ledger
from ratchet.metrics.hub import hub_registry
from ratchet.metrics.source_collector import StreamSource
from ratchet.metrics.training_status import TrainingCollector
from ratchet.metrics.worker import WorkerMetrics
from ratchet.serving.metrics import Metrics
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.server_home import StateFile
from ratchet.settings import Settings
from ratchet.systems import Lane, System
from ratchet.systems.controller import Controller

from tests.support.bus import InlineChildren
from tests.support.prometheus import Panel
from tests.support.prometheus import panels as read_panels

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "compose" / "prometheus"
GRAFANA = ROOT / "compose" / "grafana"
OF_PROMETHEUS = {"up", "ALERTS"}
OF_MACHINES = {
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "nvidia_smi_memory_total_bytes",
    "nvidia_smi_memory_used_bytes",
    "nvidia_smi_power_draw_watts",
    "nvidia_smi_temperature_gpu",
    "nvidia_smi_utilization_gpu_ratio",
}
"""What rules and panels read of node-exporter and nvidia_gpu_exporter, by their names."""

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
"""What a query adds to the name of a family, by its type."""


def rules() -> list[dict[str, Any]]:
    """All rules, recording ones too."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def panels() -> list[Panel]:
    """Every query of every panel of the dashboards as they are written."""
    return read_panels(GRAFANA / "dashboards")


def metric_names(expr: str) -> set[str]:
    """The metrics that a query reads."""
    names: set[str] = set()
    _collect(promql_parser.parse(expr), names)
    return names


def _collect(node: Any, names: set[str]) -> None:
    if isinstance(node, promql_parser.VectorSelector):
        names.add(str(node.name))
        return
    for attribute in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
        child = getattr(node, attribute, None)
        if child is not None and not isinstance(child, str):
            _collect(child, names)
    for child in getattr(node, "args", None) or []:
        _collect(child, names)


def exported(ledger: Ledger, settings: Settings, redis_url: str) -> dict[str, Metric]:
    """By name in queries: all that workers, the hub and the server export, with a story in the ledger."""
    lane = Lane("play", (), lambda *_: [], lambda _work: None)  # type: ignore[arg-type,return-value]
    system = System("toys", "3090", "Plays.", emits=(), sweep_s=60.0, lanes=(lane,))
    store = ArtifactStore(f"file://{settings.home}/artifacts")
    controller = Controller(system, settings, ledger, store, InlineChildren(), "toys@here+0")
    worker = CollectorRegistry()
    WorkerMetrics(controller, worker)
    worker.register(TrainingCollector(settings))
    hub, collectors = hub_registry(ledger, settings)
    try:
        families = [
            *worker.collect(),
            *hub.collect(),
            *StreamSource(lambda: redis_url).read(),
            *served_families(settings),
        ]
    finally:
        for collector in collectors:
            collector.close()
    return {family.name + suffix: family for family in families for suffix in SUFFIXES.get(family.type, ("",))}


def served(settings: Settings) -> Metrics:
    """What the inference server exports when it has answered one question, from a fleet with nothing loaded."""

    def load(*_: Any) -> Any:
        raise NotImplementedError

    metrics = Metrics(ModelManager(settings.serving, StateFile(settings.home / "serving"), load))
    metrics.answered(latency_s=0.1, prompt_tokens=3, generated_tokens=4)
    return metrics


def served_families(settings: Settings) -> list[Metric]:
    """The moment at which a counter began is none of them."""
    found = text_string_to_metric_families(served(settings).page().decode())
    return [family for family in found if not family.name.endswith("_created")]


def runbooks() -> Iterator[str]:
    """Anchors of the sections of the runbooks."""
    for line in (ROOT / "docs" / "alerts.md").read_text().splitlines():
        if line.startswith("### "):
            yield line.removeprefix("### ").lower()
