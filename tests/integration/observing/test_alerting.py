"""An alert from end to end: ledger, hub, Prometheus with its rules, Alertmanager with its routes, webhook.

The files are those of the stack; only addresses and waiting times are changed, so that the test takes seconds.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.metrics.hub import discovery
from ratchet.settings import Settings

from tests.support.prometheus import alertmanager_server, prometheus_server
from tests.support.workers import wait_until

COMPOSE = Path(__file__).parents[3] / "compose"
PATIENCE_S = 180.0


def hasty_prometheus(folder: Path, hub: str, alertmanager: str) -> dict[str, Any]:
    """The stack's configuration with seconds instead of minutes."""
    config: dict[str, Any] = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(folder / "rules" / "*.yml")]
    (folder / "rules").mkdir(parents=True)
    for file in (COMPOSE / "prometheus" / "rules").glob("*.yml"):
        rules = yaml.safe_load(file.read_text())
        for rule in rules["groups"][0]["rules"]:
            rule.pop("for", None)
        (folder / "rules" / file.name).write_text(yaml.safe_dump(rules))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    jobs["ratchet"]["http_sd_configs"] = [{"url": f"http://{hub}/targets", "refresh_interval": "1s"}]
    jobs["hub"]["static_configs"] = [{"targets": [hub]}]
    config["scrape_configs"] = [jobs["ratchet"], jobs["hub"]]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    return config


def hasty_alertmanager(receiver: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((COMPOSE / "alertmanager" / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route["group_wait"] = route["group_interval"] = "1s"
    for hook in config["receivers"][0]["webhook_configs"]:
        hook["url"] = f"http://{receiver}/alerts"
    return config


def test_a_dead_letter_reaches_the_receiver_with_its_runbook(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The receiver is the example that comes with the stack: the hub, which logs what is posted to it."""

    def received() -> list[str]:
        return [line for line in caplog.messages if line.startswith("alert DeadLetters firing")]

    caplog.set_level(logging.WARNING, logger="ratchet.metrics.hub")
    with discovery(settings, "127.0.0.1", 0) as hub:
        address = f"127.0.0.1:{hub.server_port}"
        with alertmanager_server(tmp_path / "am", hasty_alertmanager(address)) as alertmanager:
            config = hasty_prometheus(tmp_path / "prom", address, alertmanager)
            with prometheus_server(tmp_path / "prom", config):
                wait_until(lambda: bool(received()), PATIENCE_S, "the alert at the receiver")
    found, _, labels = received()[0].partition(" {")
    summary = "mining has 1 dead letters, which need an operator."
    assert found == f"alert DeadLetters firing: {summary} (docs/alerts.md#deadletters)"
    assert json.loads("{" + labels) | {"system": "mining", "severity": "warning"} == json.loads("{" + labels)
