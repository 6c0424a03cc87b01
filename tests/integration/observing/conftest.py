"""Real Prometheus and Alertmanager; without their binaries the tests are skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.evaluation.record import GENERAL, TaskScore
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import BatchRow, CoverageRow, EvaluationRow, MinedRow, TaskRow
from ratchet.settings import Settings
from sqlalchemy import select

from tests.support.prometheus import NoPrometheus, binary
from tests.support.story import write_story


@pytest.fixture(scope="session", autouse=True)
def binaries() -> None:
    try:
        for names in (("prometheus",), ("promtool",), ("prometheus-alertmanager", "alertmanager"), ("amtool",)):
            binary(*names)
    except NoPrometheus as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home with a story in its ledger, and a Redis."""
    home: Path = tmp_path_factory.mktemp("home")
    with EmbeddedRedis(home / "redis") as redis:
        found = Settings(home=home, redis={"url": redis.url})
        ledger = Ledger(found.ledger_url)
        migrate(ledger)
        with ledger.write() as tx:
            write_story(tx)
            add_corrections(tx)
            add_tasks(tx)
        ledger.close()
        yield found


def add_corrections(tx: Transaction) -> None:
    """What diversity measured of a batch, and how the newest checkpoint did on the set that was mined before."""
    newest = tx.session.scalars(select(BatchRow.id).order_by(BatchRow.id)).first()
    tx.session.add(CoverageRow(batch_id=newest, numbers={"entropy": 0.9, "novelty": 0.8}, created_at=tx.now))
    mined = tx.session.scalars(select(MinedRow).order_by(MinedRow.created_at.desc())).first()
    assert mined is not None
    failed = {"mined": 100, "mined_failed": 43, "random": 100, "random_failed": 37}
    mined.by_category, mined.numbers = {"wrong": 14}, {"follow_up": failed}


def add_tasks(tx: Transaction) -> None:
    """Two tasks of a user, one measured by loss and one by an LLM judge, and what the general task costs the base."""
    for name, metric in (("notes", "loss"), ("letters", "judge")):
        counts = {"held_out": {}, "rows": 400, "held_rows": 160, "passes": 2.5}
        times = {"created_at": tx.now, "updated_at": tx.now}
        row = {"kind": "user", "metric": metric, "grader": None, "pattern": None, "source": f"{name}.jsonl"}
        tx.session.add(TaskRow(name=name, **row, **counts, **times))
    for record in tx.session.scalars(select(EvaluationRow)):
        record.scores = {
            "notes": TaskScore(metric="loss", items=80, n=80, mean=1.6, low=1.5, high=1.7).model_dump(),
            "letters": TaskScore(metric="judge", items=80, n=80, mean=0.55, low=0.5, high=0.6).model_dump(),
            GENERAL: TaskScore(metric="loss", items=150, n=150, mean=0.7, low=0.6, high=0.8).model_dump(),
        }
