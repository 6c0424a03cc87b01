"""Each alert has a severity, a summary, a runbook, and three test cases."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.support.observed import PROMETHEUS, alerts, runbooks

ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in alerts()]
SEVERITIES = {"critical", "warning", "info"}


def cases() -> dict[str, list[dict[str, Any]]]:
    """By alert: its cases in the unit tests of the rules."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((PROMETHEUS / "tests").glob("*.yml")):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for expected in case["alert_rule_test"]:
                found.setdefault(expected["alertname"], []).append({**case, **expected})
    return found


@pytest.mark.parametrize("rule", ALERTS)
def test_every_alert_has_a_severity_a_summary_and_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"]["summary"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert page == "docs/alerts.md"
    assert anchor == rule["alert"].lower()
    assert anchor in set(runbooks())


@pytest.mark.parametrize("rule", ALERTS)
def test_every_alert_has_tests_firing_quiet_and_without_series(rule: dict[str, Any]) -> None:
    own = cases()[rule["alert"]]
    assert any(case["exp_alerts"] for case in own)
    assert any(case["input_series"] and not case["exp_alerts"] for case in own)
    assert any(not case["input_series"] for case in own)


def test_every_runbook_belongs_to_an_alert() -> None:
    assert sorted(runbooks()) == sorted(rule["alert"].lower() for rule in alerts())


def test_no_alert_has_its_name_twice() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
