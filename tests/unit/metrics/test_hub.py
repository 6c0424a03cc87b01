from __future__ import annotations

import json
import logging
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from prometheus_client import generate_latest
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.tables import DeadLetterRow
from ratchet.metrics.hub import discovery, hub_registry, write_alerts
from ratchet.settings import Settings
from sqlalchemy import delete

from tests.support.scrape import Scrape


@pytest.mark.parametrize(("cache_s", "told_after"), [(0.0, 0), (3600.0, 1)])
def test_a_reading_of_the_ledger_serves_further_scrapes_for_a_while(
    told: Ledger, tmp_path: Path, cache_s: float, told_after: int
) -> None:
    registry, collectors = hub_registry(told, Settings(home=tmp_path), cache_s)
    assert Scrape(generate_latest(registry).decode())["ratchet_dead_letters"] == 1
    with told.write() as tx:
        tx.session.execute(delete(DeadLetterRow))
    assert Scrape(generate_latest(registry).decode())["ratchet_dead_letters"] == told_after
    for collector in collectors:
        collector.close()


FIRING = {
    "status": "firing",
    "labels": {"alertname": "DeadLetters", "severity": "critical"},
    "annotations": {"summary": "mining has given up 2 subjects.", "runbook": "docs/alerts.md#deadletters"},
}


def test_each_alert_is_a_line_with_its_runbook(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write_alerts(json.dumps({"alerts": [FIRING, {**FIRING, "status": "resolved"}]}).encode())
    first, second = caplog.records
    assert first.levelname == "ERROR"
    assert "DeadLetters firing: mining has given up 2 subjects. (docs/alerts.md#deadletters)" in first.getMessage()
    assert second.levelname == "WARNING"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"alerts": 1}'])
def test_a_malformed_notification_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        write_alerts(body)


def get(address: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, body, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_it_serves_metrics_targets_and_alerts_and_names_them_elsewhere(
    told: Ledger, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=settings.home, ledger={"url": told.url})
    with discovery(settings, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        assert Scrape.of(f"{url}/metrics")["ratchet_ledger_up"] == 1
        assert get(f"{url}/targets") == (200, "[]")
        assert get(f"{url}/alerts", json.dumps({"alerts": [FIRING]}).encode()) == (200, "ok\n")
        assert get(f"{url}/alerts", b"[]")[0] == 400
        status, text = get(f"{url}/other")
    assert any("DeadLetters firing" in line for line in caplog.messages)
    assert status == 404
    assert "/metrics, /targets and /alerts" in text


def test_without_a_ledger_there_are_no_targets_and_the_server_keeps_running(tmp_path: Path) -> None:
    with discovery(Settings(home=tmp_path / "none"), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        assert get(f"{url}/targets")[0] == 503
        assert Scrape.of(f"{url}/metrics")["ratchet_ledger_up"] == 0


def test_a_port_that_is_taken_is_refused(settings: Settings) -> None:
    with (
        discovery(settings, "127.0.0.1", 0) as server,
        pytest.raises(TransientError, match=str(server.server_port)),
        discovery(settings, "127.0.0.1", server.server_port),
    ):
        pass
