"""`ratchet doctor`: what of this machine and this home could stop a run, and what to do about it."""

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
    "gpu": machine.cards,
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
    "metrics": stores.pages,
}


def doctor(
    as_json: Annotated[bool, Json] = False,
    compose: Annotated[
        Path | None,
        typer.Option(help="Look at this folder of compose files instead: .env, passwords, the ports of hub and judge."),
    ] = None,
) -> None:
    """Check this machine and this home. The exit code is 1 if something would stop a run.

    Every finding that is not ok says how to mend it. Run it before the first `up`, and whenever something is odd; with
    `--compose compose` it looks at what the compose files will be given, and at the ports that other machines open.
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
    """All checks; the settings themselves have been read without an error. What stops several is told once."""
    told: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            yield check(settings)
        except RatchetError as error:
            if (earlier := told.setdefault(str(error), name)) != name:
                yield Finding(name, "note", f"not looked at, for the trouble of {earlier}")
            else:
                yield Finding(name, "bad", str(error))
