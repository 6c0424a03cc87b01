"""The whole system in containers, seen from outside. The tests use one stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from ratchet.systems.registry import systems

from tests.support.compose import eventually, query
from tests.support.prometheus import Prometheus, panels

from .conftest import SETTINGS, host
from .outside import LOOP_S, SOON_S, get, nothing_went_wrong, prometheus

if TYPE_CHECKING:
    from .conftest import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

DASHBOARDS = Path(__file__).parents[2] / "compose" / "grafana" / "dashboards"
NO_CARD = "needs an NVIDIA card, which this stack has not"
NO_TASK = "needs a task of a user, and this stack is taught built-in families"
EMPTY = {
    ("training", "GPU utilization"): NO_CARD,
    ("training", "GPU memory"): NO_CARD,
    ("training", "GPU temperature"): NO_CARD,
    ("training", "GPU power"): NO_CARD,
    ("judging", "Loss by task"): NO_TASK,
    ("judging", "Preference by task"): NO_TASK,
    ("judging", "Drift from the base"): NO_TASK,
    ("judging", "Passes by task"): NO_TASK,
}
"""Panels that show nothing here, each with its reason."""
THIS_DISK = "the disk of the machine that the tests run on is as full as it is"
EXPECTED_ALERTS = {"DiskLow": THIS_DISK, "DiskNearlyFull": THIS_DISK}
"""Alerts that this stack may fire, each with its reason."""


def test_every_container_is_healthy_and_only_the_jobs_have_exited(stack: Stack) -> None:
    for each, jobs in ((stack.hub, {"migrate"}), (stack.trainer, {"prepare"}), (stack.judge, set[str]())):
        for service, container in each.containers().items():
            wanted = ("exited", "0") if service in jobs else ("running", "0")
            assert (container["State"], str(container["ExitCode"])) == wanted, service
            assert container["Health"] in ("healthy", ""), service


def test_the_loop_deploys_a_checkpoint_and_clients_get_its_answers(stack: Stack) -> None:
    url = stack.url("RATCHET_SERVING_PORT")

    def live() -> str | None:
        found = get(f"{url}/health")["live"]
        return found["checkpoint_id"] if found and not found["checkpoint_id"].startswith("c0000-") else None

    checkpoint = eventually(live, LOOP_S, "deployment")
    actions = query(stack.hub, f"select action from deployments where checkpoint_id = '{checkpoint}'")
    assert actions
    question = {"model": "ratchet", "messages": [{"role": "user", "content": "3+4="}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=question, timeout=60.0)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    nothing_went_wrong(stack)


def test_a_machine_that_does_not_train_shows_training_progress(stack: Stack) -> None:
    """Previews lie in a file of the training machine; the others have them through Redis."""

    def shown() -> bool:
        said = json.loads(stack.judge.compose("exec", "-T", "testing", "ratchet", "status", "--json"))
        return bool(said["previews"])

    eventually(shown, SOON_S, "previews on the judging machine")


def test_flower_shows_all_workers_after_login(stack: Stack) -> None:
    url = stack.url("RATCHET_FLOWER_PORT")
    assert httpx.get(f"{url}/api/workers", timeout=10.0).status_code == 401
    login = ("admin", stack.secret("flower"))

    def shown() -> bool:
        names = {name.partition("@")[0] for name in get(f"{url}/api/workers?refresh=1", auth=login)}
        return names >= set(systems())

    eventually(shown, SOON_S, "worker of each system in Flower")

    def tells_tasks_by_name() -> bool:
        return "3090.testing" in {task["name"] for task in get(f"{url}/api/tasks?limit=1000", auth=login).values()}

    eventually(tells_tasks_by_name, SOON_S, "task of testing in Flower")


def test_every_prometheus_target_is_found_and_up(stack: Stack) -> None:
    def all_up() -> bool:
        targets = prometheus(stack, "targets?state=active")["activeTargets"]
        down = [f"{t['scrapeUrl']}: {t['lastError']}" for t in targets if t["health"] != "up"]
        assert down == []
        labels = [target["labels"] for target in targets]
        assert {each["system"] for each in labels if each["job"] == "ratchet"} == {*systems(), "serving"}
        assert {each.get("host") for each in labels if each["job"] == "node"} == {"hub", "test-4090", "test-3090"}
        return {"redis", "flower", "hub", "alertmanager", "prometheus"} <= {each["job"] for each in labels}

    eventually(all_up, SOON_S, "Prometheus with all targets up")
    assert prometheus(stack, "rules")["groups"]


def test_every_panel_has_data_except_those_listed(stack: Stack) -> None:
    server, wanted = Prometheus(stack.url("RATCHET_PROMETHEUS_PORT")), panels(DASHBOARDS)
    named = [panel for panel in wanted if (panel.board, panel.title) in EMPTY]
    assert {(panel.board, panel.title) for panel in named} == EMPTY.keys()
    others = [panel for panel in wanted if panel not in named]
    assert server.unanswered(others, SOON_S, without=()) == []
    assert server.unanswered(named, without=()) == named


def test_only_expected_alerts_fire(stack: Stack) -> None:
    """Alerts that fired while the hosts started one after the other end by themselves."""

    def as_expected() -> bool:
        found = prometheus(stack, "alerts")["alerts"]
        firing = {each["labels"]["alertname"] for each in found if each["state"] == "firing"}
        sent = get(f"{stack.url('RATCHET_ALERTMANAGER_PORT')}/api/v2/alerts?active=true")
        told = {each["labels"]["alertname"] for each in sent}
        true = alerts_that_the_judges_call_for(stack)
        assert (firing | told) - EXPECTED_ALERTS.keys() == true
        assert told >= true
        return True

    eventually(as_expected, SOON_S, "calm but for what is true")


def alerts_that_the_judges_call_for(stack: Stack) -> set[str]:
    """A real model may get much worse in training at any time; only then may this alert fire."""
    worse = query(stack.hub, "select checkpoint_id from regressions where severity = 'critical'")
    return {"RegressionCritical"} if worse else set()


def test_grafana_has_the_dashboards(stack: Stack) -> None:
    url, login = stack.url("RATCHET_GRAFANA_PORT"), ("admin", stack.secret("grafana"))
    assert get(f"{url}/api/datasources/uid/prometheus", auth=login)["type"] == "prometheus"
    assert len(get(f"{url}/api/search?type=dash-db", auth=login)) >= 4


def test_doctor_on_the_hub_reaches_every_store_and_finds_no_error(stack: Stack) -> None:
    """The command fails, and this call with it, if a finding is an error."""
    said = json.loads(stack.hub.compose("run", "--rm", "-T", "ratchet", "doctor", "--json"))
    states = {finding["check"]: finding["state"] for finding in said}
    assert {states[check] for check in ("ledger", "redis", "artifacts", "secrets", "server", "versions")} == {"ok"}, (
        said
    )


def test_a_host_with_a_wrong_setting_fails_with_an_error_that_names_it(stack: Stack) -> None:
    folder = stack.secrets.parent
    (folder / "wrong.toml").write_text(f'{SETTINGS}\n[model]\npath = "/models/nowhere"\n')
    wrong = {"RATCHET_TOML": str(folder / "wrong.toml")}
    joining = host(folder, stack.address, "wrong", "gpu-4090.yml", "cpu-4090.yml", **wrong)
    try:
        with pytest.raises(AssertionError, match="/models/nowhere"):
            joining.up("generation")
        assert set(joining.containers(all_of_them=False)) == set()
    finally:
        joining.down()
