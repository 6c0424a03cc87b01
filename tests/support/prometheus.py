"""A real Prometheus and a real Alertmanager for tests, from Debian's binaries, and the queries that people look at."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ratchet.ports import LOOPBACK, free_port

PATIENCE_S = 180.0
REQUEST_S = 30.0
WITHOUT_A_GPU = ("nvidia_smi_",)


class NoPrometheus(Exception):
    """A binary is missing; the message names the way to get it."""


class Panel(NamedTuple):
    """One query of a panel, with its dashboard and title."""

    board: str
    title: str
    expr: str


def panels(dashboards: Path) -> list[Panel]:
    """Every query of every panel of a folder of dashboards."""
    found = []
    for file in sorted(dashboards.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            found += [Panel(file.stem, panel["title"], target["expr"]) for target in panel.get("targets", [])]
    return found


def binary(*names: str) -> str:
    """The first of these programs that is here. Raises NoPrometheus."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise NoPrometheus(
        f"there is no {names[0]} here; on Debian and Ubuntu: apt-get install prometheus prometheus-alertmanager"
    )


@dataclass(frozen=True)
class Prometheus:
    """A server at a URL, of this test or of a running stack."""

    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """What an instant query answers: a list of series."""
        answer = self.get(f"/api/v1/query?query={urllib.parse.quote(expr)}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=REQUEST_S) as answer:
            return json.load(answer)

    def unanswered(
        self, wanted: Sequence[Panel], timeout_s: float = 0.0, without: Sequence[str] = WITHOUT_A_GPU
    ) -> list[Panel]:
        """Those panels whose query has answered nothing until now, or at no time until the timeout.

        ``without`` are beginnings of metrics that are not to be had. Some panels are empty while nothing is trained.
        """
        deadline = time.monotonic() + timeout_s
        left = [panel for panel in wanted if not any(name in panel.expr for name in without)]
        while True:
            left = [panel for panel in left if not self.query(panel.expr)]
            if not left or time.monotonic() >= deadline:
                return left
            time.sleep(1.0)


@contextmanager
def prometheus_server(folder: Path, config: Mapping[str, Any]) -> Iterator[Prometheus]:
    """A server with that configuration, ready to be asked. Raises NoPrometheus."""
    program, port = binary("prometheus"), free_port()
    _write(folder / "prometheus.yml", config)
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
    ]
    with _running(command, folder / "prometheus.log"):
        url = f"http://{LOOPBACK}:{port}"
        _wait_ready(f"{url}/-/ready", folder / "prometheus.log")
        yield Prometheus(url)


@contextmanager
def alertmanager_server(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """An Alertmanager with that configuration; its ``host:port``. Raises NoPrometheus."""
    program, port = binary("prometheus-alertmanager", "alertmanager"), free_port()
    _write(folder / "alertmanager.yml", config)
    command = [
        program,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'notices'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--cluster.listen-address=",
    ]
    with _running(command, folder / "alertmanager.log"):
        _wait_ready(f"http://{LOOPBACK}:{port}/-/ready", folder / "alertmanager.log")
        yield f"{LOOPBACK}:{port}"


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.kill()


def _wait_ready(url: str, log: Path) -> None:
    _until(lambda: _answers(url), f"{url} to answer; its log ends with {log.read_text()[-2000:]}")


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=REQUEST_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _write(path: Path, config: Mapping[str, Any]) -> None:
    """JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
