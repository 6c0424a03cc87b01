"""The example receiver of Alertmanager's webhook: each alert becomes a line of the log."""

from __future__ import annotations

import json
import logging
from typing import Any

log = logging.getLogger(__name__)


def write_alerts(body: bytes) -> None:
    """Log each alert of one notification. Raises ValueError for what is no notification."""
    notification = json.loads(body)
    if not isinstance(notification, dict) or not isinstance(notification.get("alerts"), list):
        raise ValueError("a notification of Alertmanager has a list of alerts")
    for alert in notification["alerts"]:
        labels: dict[str, Any] = alert.get("labels", {})
        notes: dict[str, Any] = alert.get("annotations", {})
        level = logging.ERROR if _is_bad(alert, labels) else logging.WARNING
        log.log(
            level,
            "alert %s %s: %s (%s) %s",
            labels.get("alertname", "without a name"),
            alert.get("status", "firing"),
            notes.get("summary", ""),
            notes.get("runbook", "no runbook"),
            json.dumps(labels, sort_keys=True),
        )


def _is_bad(alert: dict[str, Any], labels: dict[str, Any]) -> bool:
    return alert.get("status") == "firing" and labels.get("severity") == "critical"
