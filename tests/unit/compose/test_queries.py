"""Alerts and panels use only exported metrics, and each metric has one exporter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.settings import Settings

from tests.support.observed import (
    OF_MACHINES,
    OF_PROMETHEUS,
    ROOT,
    alerts,
    exported,
    metric_names,
    panels,
    recorded,
    rules,
)
from tests.support.story import write_story


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Metric]]:
    home: Path = tmp_path_factory.mktemp("home")
    settings = Settings(home=home)
    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    with ledger.write() as tx:
        write_story(tx)
    with EmbeddedRedis(home / "redis") as redis:
        yield exported(ledger, settings, redis.url)
    ledger.close()


@pytest.mark.parametrize("rule", [pytest.param(r, id=r.get("alert", r.get("record"))) for r in rules()])
def test_every_metric_of_a_rule_is_exported(rule: dict[str, str], known: dict[str, Metric]) -> None:
    assert metric_names(rule["expr"]) <= known.keys() | recorded() | OF_PROMETHEUS | OF_MACHINES


@pytest.mark.parametrize("panel", [pytest.param(p, id=f"{p.board}-{p.title}-{i}") for i, p in enumerate(panels())])
def test_every_metric_of_a_panel_is_exported(panel: tuple[str, str, str], known: dict[str, Metric]) -> None:
    names = metric_names(panel[2])
    assert names
    assert names <= known.keys() | recorded() | OF_PROMETHEUS | OF_MACHINES


UNSEEN = {
    "ratchet_accuracy_items": "the width of the interval says what it means",
    "ratchet_checkpoint_info": "names checkpoints for queries of one's own; a panel shows their numbers",
    "ratchet_serving_live": "the same; Served is champion says whether it is the right one",
    "ratchet_serving_switches": "the ledger counts deployments, and the server's count begins anew with it",
    "ratchet_training_preview_step": "when the last preview was; the panel of steps is beside it",
}
"""Families that are in no panel, and that no rule reads, each with its reason."""


def test_every_exported_metric_has_a_panel_an_alert_or_a_reason(known: dict[str, Metric]) -> None:
    read = {name for panel in panels() for name in metric_names(panel.expr)}
    read |= {name for rule in rules() for name in metric_names(rule["expr"])}
    families = {family.name for name, family in known.items() if not name.startswith("process_")}
    seen = {family.name for name, family in known.items() if name in read}
    assert families - seen == UNSEEN.keys()


def test_names_are_found_in_every_part_of_a_query() -> None:
    query = 'sum by (x) (rate(a_total[5m])) / max(b{c="d"}) > 3 * (e or vector(0)) and absent(f)'
    query += " unless max_over_time(g[6h])"
    assert metric_names(query) == {"a_total", "b", "e", "f", "g"}


def test_every_metric_of_ratchet_has_its_prefix_and_a_description(known: dict[str, Metric]) -> None:
    own = {name: family for name, family in known.items() if not name.startswith("process_")}
    assert all(name.startswith("ratchet_") for name in own)
    assert all(family.documentation.endswith(".") for family in own.values())


def test_the_observing_page_names_every_metric(known: dict[str, Metric]) -> None:
    page = (ROOT / "docs" / "observing.md").read_text()
    own = {name: family for name, family in known.items() if not name.startswith("process_")}
    missing = [name for name, family in own.items() if f"`{name}`" not in page and f"`{family.name}`" not in page]
    assert missing == []
    named = set(re.findall(r"^\| `(ratchet_\w+)`", page, re.MULTILINE))
    assert named <= known.keys() | {family.name for family in known.values()}


def test_every_part_of_the_stack_has_an_alert() -> None:
    watched = {name for rule in alerts() for name in metric_names(rule["expr"])}
    parts = ("queue", "training", "regression", "pending", "deployment", "dead", "worker", "redis", "ledger", "events")
    for part in (*parts, "gpu", "filesystem", "canary"):
        assert any(name.startswith(f"ratchet_{part}") or part in name for name in watched)
