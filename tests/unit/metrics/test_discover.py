from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import DeadLetterRow
from ratchet.metrics.discover import hub_registry
from ratchet.metrics.exposition import page
from ratchet.settings import Settings
from sqlalchemy import delete

from tests.support.scrape import Scrape


@pytest.mark.parametrize(("cache_s", "told_after"), [(0.0, 0), (3600.0, 1)])
def test_how_long_a_reading_of_the_ledger_serves_is_set(
    told: Ledger, tmp_path: Path, cache_s: float, told_after: int
) -> None:
    registry, collectors = hub_registry(told, Settings(home=tmp_path, metrics={"cache_s": cache_s}))
    assert Scrape(page(registry).body.decode())["ratchet_dead_letters"] == 1
    with told.write() as tx:
        tx.session.execute(delete(DeadLetterRow))
    assert Scrape(page(registry).body.decode())["ratchet_dead_letters"] == told_after
    for collector in collectors:
        collector.close()
