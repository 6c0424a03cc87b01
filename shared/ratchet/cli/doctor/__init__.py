"""`ratchet doctor`: checks of this machine and this home for problems that would stop a run, with remedies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.doctor import machine, stores
from ratchet.cli.doctor.finding import Finding, State
from ratchet.cli.doctor.machine import examine_folder
from ratchet.cli.output import Json, print_json
from ratchet.errors import RatchetError
from ratchet.settings import Settings, load

__all__ = ["Finding", "State", "doctor", "examine"]

CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "python": machine.python,
    "machine": machine.machine,
    "disk": machine.disk,
    "home": machine.home,
    "hub": machine.hub,
    "proxy": machine.proxies,
    "gpu": machine.cards,
    "vllm": machine.vllm,
    "training": machine.training,
    "systems": machine.systems,
    "ledger": stores.ledger,
    "redis": stores.redis,
    "artifacts": stores.artifacts,
    "clock": stores.clocks,
    "secrets": stores.secrets,
    "server": stores.server,
    "versions": stores.versions,
    "workers": stores.workers,
    "failures": stores.failures,
    "drill": stores.drill,
    "metrics": stores.pages,
}


def doctor(
    as_json: Annotated[bool, Json] = False,
    compose: Annotated[
        Path | None,
        typer.Option(help="Check a folder of compose files instead: .env, passwords, and the ports of hub and judge."),
    ] = None,
) -> None:
    """Check this machine and this home. The exit code is 1 if something would stop a run.

    Every finding that is not ok says how to fix it. Run it before the first `up`, and whenever something seems wrong.
    With `--compose compose` it checks the files that Docker Compose will read, and the ports that other machines open.
    """
    findings = list(examine(load()) if compose is None else examine_folder(compose))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.state:<5} {finding.check:<10} {finding.text}")
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """The findings of all checks. An error that several checks raise is reported in full only once."""
    reported: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            yield check(settings)
        except RatchetError as error:
            if (earlier := reported.setdefault(str(error), name)) != name:
                yield Finding(name, "note", f"not checked, for the same reason as {earlier}")
            else:
                yield Finding(name, "bad", str(error))
