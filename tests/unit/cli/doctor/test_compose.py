"""`ratchet doctor --compose`: what the compose files will be given, looked at before the first `up`."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from ratchet.cli.doctor.finding import Finding
from ratchet.cli.doctor.machine import SECRETS, examine_folder, read_env
from ratchet.cli.main import app
from ratchet.ports import LOOPBACK, free_port
from typer.testing import CliRunner

COMPOSE = Path(__file__).parents[4] / "compose"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder after the first steps of docs/deploy.md, with free ports."""
    for name in (".env.example", "make-secrets"):
        shutil.copy(COMPOSE / name, tmp_path / name)
    subprocess.run([tmp_path / "make-secrets"], check=True)
    shutil.copy(tmp_path / ".env.example", tmp_path / ".env")
    for name in ("RATCHET_ADDRESS", "RATCHET_HUB", "RATCHET_JUDGE"):
        put(tmp_path, name, LOOPBACK)
    put(tmp_path, "RATCHET_MACHINE", "trainer")
    for name in ("RATCHET_REDIS_PORT", "RATCHET_LEDGER_PORT", "RATCHET_STORAGE_PORT", "RATCHET_SERVING_PORT"):
        put(tmp_path, name, str(free_port()))
    return tmp_path


def put(folder: Path, name: str, value: str) -> None:
    with open(folder / ".env", "a") as file:
        file.write(f"{name}={value}\n")


def found(folder: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine_folder(folder)}


def test_a_complete_compose_folder_has_no_findings(folder: Path) -> None:
    findings = found(folder)
    assert {name: finding.state for name, finding in findings.items()} == {
        "env": "ok",
        "pages": "ok",
        "passwords": "ok",
        "hub": "note",
        "judge": "note",
    }
    assert "that is expected before the `up` of the hub" in findings["hub"].text
    assert CliRunner().invoke(app, ["doctor", "--compose", str(folder)]).exit_code == 0


def test_ports_that_are_in_use_are_reported(folder: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        put(folder, "RATCHET_SERVING_PORT", str(server.getsockname()[1]))
        judge = found(folder)["judge"]
    assert (judge.state, "if the 3090 host is not up yet, another program uses them" in judge.text) == ("ok", True)


def test_the_unchanged_example_describes_one_machine(folder: Path) -> None:
    shutil.copy(folder / ".env.example", folder / ".env")
    assert read_env(folder / ".env")["RATCHET_MACHINE"] == "one"
    for name in ("RATCHET_REDIS_PORT", "RATCHET_LEDGER_PORT", "RATCHET_STORAGE_PORT", "RATCHET_SERVING_PORT"):
        put(folder, name, str(free_port()))
    assert "all on this one machine" in found(folder)["env"].text


def test_wrong_names_are_reported(folder: Path) -> None:
    put(folder, "RATCHET_MACHINE", "one")
    assert "give each machine a unique name" in found(folder)["env"].text
    put(folder, "RATCHET_ADDRESS", "172.17.0.1")
    assert "RATCHET_ADDRESS is still Docker's bridge" in found(folder)["env"].text
    put(folder, "RATCHET_HUB", "")
    assert "does not set RATCHET_HUB" in found(folder)["env"].text
    (folder / ".env").unlink()
    assert found(folder)["env"].state == "bad"


@pytest.mark.parametrize("name", ["RATCHET_ADDRESS", "RATCHET_HUB"])
def test_ports_open_to_every_network_are_reported(folder: Path, name: str) -> None:
    put(folder, name, "0.0.0.0")
    env = found(folder)["env"]
    assert (env.state, env.text.startswith(f"{name} stands for every address")) == ("bad", True)


def test_exposed_pages_without_a_login_are_reported(folder: Path) -> None:
    put(folder, "RATCHET_MONITORING_ADDRESS", "192.168.1.10")
    pages = found(folder)["pages"]
    assert (pages.state, "have no login" in pages.text) == ("note", True)


def test_wrong_passwords_are_reported(folder: Path) -> None:
    secrets = folder / "secrets"
    secrets.chmod(0o755)
    assert "chmod 700" in found(folder)["passwords"].text
    (secrets / "grafana").unlink()
    (secrets / "grafana").write_text("admin")
    assert "short or guessable" in found(folder)["passwords"].text
    (secrets / "grafana").write_text((secrets / "ledger").read_text())
    assert "hold the same password" in found(folder)["passwords"].text
    (secrets / "grafana").unlink()
    assert "lacks grafana" in found(folder)["passwords"].text


def test_every_generated_password_is_checked() -> None:
    made = (COMPOSE / "make-secrets").read_text().split("for name in ")[1].split(";")[0]
    assert set(SECRETS) == set(made.split())
