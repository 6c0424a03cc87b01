"""The tools of Prometheus and Alertmanager accept our files, and the rules pass their own tests."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from tests.support.prometheus import binary, panels

COMPOSE = Path(__file__).parents[3] / "compose"
PROMETHEUS = COMPOSE / "prometheus"


def call(*command: str, cwd: Path = PROMETHEUS) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_configuration_and_its_rules_are_accepted() -> None:
    said = call(binary("promtool"), "check", "config", "prometheus.yml")
    files = len(list((PROMETHEUS / "rules").glob("*.yml")))
    assert f"SUCCESS: {files} rule files found" in said


def test_the_rules_pass_their_tests() -> None:
    files = [file.name for file in sorted((PROMETHEUS / "tests").glob("*.yml"))]
    said = call(binary("promtool"), "test", "rules", *files, cwd=PROMETHEUS / "tests")
    assert said.count("SUCCESS") == len(files) == len(list((PROMETHEUS / "rules").glob("*.yml")))


def test_prometheus_parses_every_panel_query(tmp_path: Path) -> None:
    """As recording rules, which promtool parses as the server does."""
    queries = [panel.expr for panel in panels(COMPOSE / "grafana" / "dashboards")]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(queries)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(queries)} rules found" in call(binary("promtool"), "check", "rules", str(file))


def test_alertmanager_accepts_the_routes_and_each_ends_at_a_receiver() -> None:
    file = str(COMPOSE / "alertmanager" / "alertmanager.yml")
    call(binary("amtool"), "check-config", file)
    for severity in ("critical", "warning"):
        routed = call(binary("amtool"), "config", "routes", "test", f"--config.file={file}", f"severity={severity}")
        assert routed.splitlines()[0] == "hub-log"


def test_alertmanager_accepts_the_example_receivers(tmp_path: Path) -> None:
    """The file with every line after the receivers uncommented."""
    head, receivers, tail = (COMPOSE / "alertmanager" / "alertmanager.yml").read_text().partition("\nreceivers:\n")
    shown = re.sub(r"^( +)# (?=- |\w+:| )(?!To |By )", r"\1", tail, flags=re.MULTILINE)
    assert shown != tail
    file = tmp_path / "alertmanager.yml"
    file.write_text(head + receivers + shown)
    call(binary("amtool"), "check-config", str(file))
    (receiver,) = yaml.safe_load(file.read_text())["receivers"]
    assert (len(receiver["webhook_configs"]), len(receiver["email_configs"])) == (2, 1)
