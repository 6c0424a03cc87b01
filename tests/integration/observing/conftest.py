"""Real Prometheus and Alertmanager; where their binaries are not, the tests are skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.settings import Settings
from ratchet.testing.prometheus import NoPrometheus, binary
from ratchet.testing.story import write_story


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
        found = Settings(home=home, redis={"url": redis.url}, metrics={"cache_s": 0})
        ledger = Ledger(found.ledger_url)
        migrate(ledger)
        with ledger.write() as tx:
            write_story(tx)
        ledger.close()
        yield found
