from __future__ import annotations

import json

from ratchet.ledger import Ledger
from ratchet.ledger.tables import Worker
from ratchet.metrics.targets import targets_json
from sqlalchemy import update


def test_workers_with_metrics_are_targets_until_they_stop(told: Ledger) -> None:
    with told.write() as tx:
        tx.session.execute(
            update(Worker).where(Worker.system != "deployment").values(metrics_url="http://10.0.0.4:9101/metrics")
        )
        tx.session.execute(update(Worker).where(Worker.system == "training").values(state="stopped"))
    assert json.loads(targets_json(told)) == [
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


def test_a_worker_not_seen_for_a_day_is_history(told: Ledger) -> None:
    with told.write() as tx:
        tx.session.execute(update(Worker).values(metrics_url="http://10.0.0.4:9101/metrics", seen_at=tx.now - 90_000))
    assert json.loads(targets_json(told)) == []
