from __future__ import annotations

import json

from ratchet.ledger import Ledger
from ratchet.ledger.tables import WorkerRow
from ratchet.metrics.targets import known_pages, server_target, targets_json
from ratchet.settings import Settings
from sqlalchemy import update


def test_workers_with_metrics_are_targets_until_they_stop(told: Ledger, settings: Settings) -> None:
    with told.write() as tx:
        tx.session.execute(
            update(WorkerRow).where(WorkerRow.system != "deployment").values(metrics_url="http://10.0.0.4:9101/metrics")
        )
        tx.session.execute(update(WorkerRow).where(WorkerRow.system == "training").values(state="stopped"))
    assert json.loads(targets_json(told, settings)) == [
        {
            "targets": ["10.0.0.4:9101"],
            "labels": {
                "__metrics_path__": "/metrics",
                "__scheme__": "http",
                "system": "testing",
                "worker": "testing@box+0",
                "host": "box",
            },
        }
    ]


def test_a_worker_not_seen_for_a_day_is_no_target(told: Ledger, settings: Settings) -> None:
    with told.write() as tx:
        tx.session.execute(
            update(WorkerRow).values(metrics_url="http://10.0.0.4:9101/metrics", seen_at=tx.now - 90_000)
        )
    assert json.loads(targets_json(told, settings)) == []


def test_the_inference_server_is_a_target_where_it_is_known(settings: Settings) -> None:
    assert server_target(settings) == []
    named = Settings(home=settings.home, serving={"url": "http://10.0.0.3:8100/"})
    assert server_target(named) == [
        {
            "targets": ["10.0.0.3:8100"],
            "labels": {
                "__metrics_path__": "/metrics",
                "__scheme__": "http",
                "system": "serving",
                "worker": "server@10.0.0.3",
                "host": "10.0.0.3",
            },
        }
    ]


def test_a_worker_registers_the_exporters_of_its_machine(told: Ledger, settings: Settings) -> None:
    knowing = Settings(
        home=settings.home,
        metrics={"exporters": {"node": "10.0.0.4:9100"}},
        serving={"url": "http://10.0.0.3:8100/"},
    )
    pages = known_pages(knowing)
    with told.write() as tx:
        tx.session.execute(update(WorkerRow).values(metrics_url=WorkerRow.name, pages=pages))
    found = json.loads(targets_json(told, settings))
    beside = {each["targets"][0]: each["labels"] for each in found if each["targets"][0].startswith("10.")}
    assert set(beside) == {"10.0.0.4:9100", "10.0.0.3:8100"}
    assert len(found) == len({each["targets"][0] for each in found})
    node, server = beside["10.0.0.4:9100"], beside["10.0.0.3:8100"]
    assert (node["job"], node["host"], node["__metrics_path__"]) == ("node", "box", "/metrics")
    assert (server["system"], server["worker"]) == ("serving", "server@10.0.0.3")
    assert "job" not in server


def test_pages_of_a_stopped_worker_are_no_targets(told: Ledger, settings: Settings) -> None:
    with told.write() as tx:
        pages = {"node": "http://10.0.0.4:9100/metrics"}
        tx.session.execute(update(WorkerRow).values(metrics_url="http://10.0.0.4:9101/", state="stopped", pages=pages))
    assert json.loads(targets_json(told, settings)) == []
