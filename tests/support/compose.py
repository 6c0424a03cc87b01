"""Stacks of containers for tests: the compose files of the repository, under names and ports of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from ratchet.lines import split_lines

Found = TypeVar("Found")
COMMAND_S = 900.0
TRIES_EVERY_S = 2.0


def missing_engine() -> str | None:
    """Why no container can be run here, or None."""
    if shutil.which("docker") is None:
        return "there is no docker on this machine"
    answer = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        answer = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return None if answer.returncode == 0 else f"the Docker engine does not answer: {answer.stderr.strip()[-300:]}"


def docker(*arguments: str, timeout_s: float = COMMAND_S) -> str:
    """Output of a docker command. Raises AssertionError with its error output if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "RATCHET_"))}
    answer = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, env=environment, timeout=timeout_s, check=False
    )
    assert answer.returncode == 0, f"docker {' '.join(arguments)}:\n{answer.stdout[-3000:]}\n{answer.stderr[-5000:]}"
    return answer.stdout


def eventually(look: Callable[[], Found | None], limit_s: float, what: str) -> Found:
    """What ``look`` finds, tried again and again. Raises AssertionError after so long."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            found, trouble = look(), ""
        except (OSError, AssertionError, ValueError, httpx.HTTPError) as error:
            found, trouble = None, str(error)
        if found:
            return found
        assert time.monotonic() < deadline, f"no {what} within {limit_s:.0f} s. {trouble}"
        time.sleep(TRIES_EVERY_S)


@dataclass(frozen=True)
class Host:
    """One compose project: what runs on one machine."""

    files: tuple[Path, ...]
    env_file: Path

    def compose(self, *arguments: str) -> str:
        """Output of ``docker compose`` on this host's files."""
        files = [piece for file in self.files for piece in ("--file", str(file))]
        return docker("compose", "--env-file", str(self.env_file), *files, *arguments)

    def up(self, *services: str) -> None:
        """Start everything, or some services with what they need, and wait until it is healthy."""
        try:
            self.compose("up", "--detach", "--wait", "--wait-timeout", "600", *services)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--tail', '15')[-8000:]}") from None

    def down(self) -> None:
        """Remove everything, volumes included."""
        self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans")

    def containers(self, *, all_of_them: bool = True) -> dict[str, dict[str, str]]:
        """The output of ``docker compose ps`` for each service's container."""
        lines = self.compose("ps", "--format", "json", *(["--all"] if all_of_them else []))
        return {row["Service"]: row for row in map(json.loads, split_lines(lines))}

    def kill(self, service: str) -> None:
        """End a service's container at once, as a power cut does."""
        docker("kill", self.containers()[service]["ID"])


def query(hub: Host, sql: str) -> list[list[str]]:
    """Rows of a query to the hub's ledger, as text."""
    command: Sequence[str] = ("psql", "-U", "ratchet", "-d", "ratchet", "-At", "-F", "\t", "-c", sql)
    answer = hub.compose("exec", "-T", "postgres", *command)
    return [line.split("\t") for line in split_lines(answer)]
