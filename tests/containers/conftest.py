"""One stack for all tests: a hub and two hosts, as compose projects that reach each other by published ports alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.compose import Host, docker, missing_engine

ROOT = Path(__file__).parents[2]
PORTS = {
    "RATCHET_REDIS_PORT": "26379",
    "RATCHET_LEDGER_PORT": "25432",
    "RATCHET_STORAGE_PORT": "28333",
    "RATCHET_SERVING_PORT": "28100",
    "RATCHET_WEB_PORT": "28000",
    "RATCHET_FLOWER_PORT": "25555",
    "RATCHET_PROMETHEUS_PORT": "29090",
    "RATCHET_ALERTMANAGER_PORT": "29093",
    "RATCHET_GRAFANA_PORT": "23000",
    "RATCHET_PORTS_4090": "293",
    "RATCHET_PORTS_3090": "292",
    "RATCHET_NODE_PORT_4090": "29101",
    "RATCHET_NODE_PORT_3090": "29100",
    "RATCHET_GPU_PORT_4090": "29836",
    "RATCHET_GPU_PORT_3090": "29835",
}
SETTINGS = """
[control]
grace_s = 8.0
timer_s = 5.0

[serving]
watch_s = 3.0
"""


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """These tests need a container engine and are skipped without one, with the reason."""
    if reason := missing_engine():
        pytest.skip(reason)


@dataclass(frozen=True)
class Stack:
    """The three hosts and their addresses."""

    hub: Host
    trainer: Host
    judge: Host
    address: str
    secrets: Path

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def url(self, port_variable: str) -> str:
        return f"http://{self.address}:{PORTS[port_variable]}"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The three hosts as files and images, nothing started yet."""
    folder = tmp_path_factory.mktemp("stack")
    docker("version")
    os.chmod(folder, 0o755)
    (folder / "ratchet.toml").write_text(SETTINGS)
    (folder / "ratchet.toml").chmod(0o644)
    (folder / "backups").mkdir()
    (folder / "backups").chmod(0o777)
    made = os.spawnl(os.P_WAIT, str(ROOT / "compose" / "make-secrets"), "make-secrets", str(folder))
    assert made == 0
    address = docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}").strip()
    hub = host(folder, address, "hub", "hub.yml")
    trainer = host(folder, address, "4090", "gpu-4090.yml", "cpu-4090.yml")
    judge = host(folder, address, "3090", "gpu-3090.yml", "cpu-3090.yml")
    for each in (hub, trainer, judge):
        each.down()
        each.compose("build")
    return Stack(hub, trainer, judge, address, folder / "secrets")


@pytest.fixture(scope="session")
def stack(prepared: Stack) -> Iterator[Stack]:
    """Everything up and healthy."""
    hosts = (prepared.hub, prepared.trainer, prepared.judge)
    try:
        for each in hosts:
            each.up()
        yield prepared
    finally:
        for each in reversed(hosts):
            each.down()


def host(folder: Path, address: str, name: str, *files: str, **variables: str) -> Host:
    """A machine of that name: its own project, volumes and environment file."""
    values = {
        "RATCHET_ADDRESS": address,
        "RATCHET_MONITORING_ADDRESS": address,
        "RATCHET_HUB": address,
        "RATCHET_JUDGE": address,
        "RATCHET_MACHINE": f"test-{name}",
        "RATCHET_PROJECT_HUB": "ratchet-test-hub",
        "RATCHET_PROJECT_4090": f"ratchet-test-{name}",
        "RATCHET_PROJECT_3090": f"ratchet-test-{name}",
        "RATCHET_VOLUME": f"ratchet-test-{name}",
        "RATCHET_IMAGES": "ratchet-test",
        "RATCHET_SECRETS": str(folder / "secrets"),
        "RATCHET_TOML": str(folder / "ratchet.toml"),
        "RATCHET_BACKUPS": str(folder / "backups"),
        "RATCHET_MODEL_MEMORY": "3g",
        **PORTS,
        **variables,
    }
    env_file = folder / f"{name}.env"
    env_file.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    return Host(tuple(ROOT / "compose" / file for file in files), env_file)
