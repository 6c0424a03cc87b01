from __future__ import annotations

import json
import logging

import pytest
from ratchet.metrics.alerts import write_alerts

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
def test_what_is_no_notification_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        write_alerts(body)
