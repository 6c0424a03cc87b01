"""`ratchet doctor`: what of this machine and this home could stop a run, and what to do about it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import psutil
import typer

from ratchet.bus.connection import connect, redis_trouble, redis_url
from ratchet.bus.executable import server_executable
from ratchet.bus.ports import is_free, port_owner
from ratchet.cli.machine import gpus
from ratchet.cli.output import Json, print_json, size
from ratchet.cli.place import opened
from ratchet.cli.remote_stores import CLOCK_LIMIT_S, artifacts_answer, clock_difference_s, weak_passwords
from ratchet.errors import RatchetError, SurroundingsError
from ratchet.ledger import Ledger
from ratchet.ledger.counters import value
from ratchet.ledger.migrate import require_current
from ratchet.run import lock
from ratchet.serving.client import EmbeddedServerClient
from ratchet.settings import Settings, load
from ratchet.systems import registry

State = Literal["ok", "note", "bad"]
LEAST_DISK_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """What one check says; ``bad`` stops a run."""

    check: str
    state: State
    text: str


def doctor(as_json: Annotated[bool, Json] = False) -> None:
    """Check this machine and this home. The exit code is 1 if something would stop a run."""
    findings = list(examine(load()))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.state:<5} {finding.check:<10} {finding.text}")
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """All checks; the settings themselves have been read without an error."""
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _python,
        _machine,
        _disk,
        _systems,
        _ledger,
        _clock,
        _artifacts,
        _secrets,
        _redis,
        _server,
    )
    for check in checks:
        try:
            yield check(settings)
        except RatchetError as error:
            yield Finding(check.__name__.removeprefix("_"), "bad", str(error))


def _python(_settings: Settings) -> Finding:
    missing = [name for name in ("torch", "transformers", "safetensors") if importlib.util.find_spec(name) is None]
    version = f"Python {platform.python_version()} at {sys.prefix}"
    if missing:
        return Finding(
            "python", "note", f"{version}; without {', '.join(missing)}: systems with models cannot run here"
        )
    return Finding("python", "ok", version)


def _machine(_settings: Settings) -> Finding:
    cards = ", ".join(f"{gpu.name} with {size(gpu.memory_bytes)}" for gpu in gpus()) or "no NVIDIA GPU"
    memory = psutil.virtual_memory()
    text = f"{psutil.cpu_count()} cores, {size(memory.available)} of {size(memory.total)} memory free, {cards}"
    return Finding("machine", "ok", text)


def _disk(settings: Settings) -> Finding:
    folder = settings.home.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{size(free)} free at {folder}"
    return Finding("disk", "ok" if free > LEAST_DISK_BYTES else "bad", text)


def _systems(_settings: Settings) -> Finding:
    names = list(registry.systems())
    missing = [name for name in registry.ORDER if name not in names]
    if missing:
        return Finding("systems", "note", f"{len(names)} installed; not here: {', '.join(missing)}")
    return Finding("systems", "ok", f"{len(names)} installed")


def _ledger(settings: Settings) -> Finding:
    if settings.ledger.url is None and not (settings.home / "ledger.db").exists():
        return Finding("ledger", "note", "not made yet; the first run makes it")
    ledger = Ledger(settings.ledger_url)
    try:
        require_current(ledger)
    finally:
        ledger.close()
    return Finding("ledger", "ok", f"{ledger.dialect}, schema up to date")


def _clock(settings: Settings) -> Finding:
    if settings.ledger.url is None:
        return Finding("clock", "ok", "the ledger is on this machine")
    ledger = Ledger(settings.ledger_url)
    try:
        ahead_s = clock_difference_s(ledger)
    finally:
        ledger.close()
    if abs(ahead_s) > CLOCK_LIMIT_S:
        text = f"{ahead_s:+.1f} s against the ledger's: let both follow a time server (timedatectl set-ntp true)"
        return Finding("clock", "note", text)
    return Finding("clock", "ok", f"{ahead_s:+.1f} s against the ledger's")


def _artifacts(settings: Settings) -> Finding:
    return Finding("artifacts", "ok", artifacts_answer(settings))


def _secrets(settings: Settings) -> Finding:
    weak = weak_passwords(settings)
    if weak:
        return Finding(
            "secrets", "note", f"short or guessable: {', '.join(weak)}; compose/make-secrets makes good ones"
        )
    return Finding("secrets", "ok", "no password is short or its user's name")


def _redis(settings: Settings) -> Finding:
    if settings.redis.url is None and lock.holder(settings.home) is None:
        return Finding("redis", "ok", f"the next run starts {server_executable()}")
    client = connect(redis_url(settings))
    with redis_trouble():
        version = client.info("server").get("redis_version")
    return Finding("redis", "ok", f"version {version} answers")


def _server(settings: Settings) -> Finding:
    port, running = settings.serving.port, lock.holder(settings.home)
    if settings.serving.url is not None:
        return _obedience(settings, f"of its own at {settings.serving.url}")
    if running is not None:
        return _obedience(settings, f"belongs to the run, process {running}")
    if port and not is_free(port):
        return Finding("server", "bad", f"port {port} is taken by {port_owner(port)}: set serving.port to another one")
    return Finding("server", "ok", f"port {port or 'of any number'} is free")


def _obedience(settings: Settings, text: str) -> Finding:
    """Whether a running server obeys this ledger, whose fencing tokens are lower after a restore from a backup."""
    try:
        with EmbeddedServerClient.from_settings(settings.serving, settings.serving_home) as server:
            highest = server.health().highest_token
    except SurroundingsError as error:
        return Finding("server", "note", f"{text}; it does not answer: {error}")
    with opened(settings) as (_, ledger), ledger.read() as session:
        given = value(session, "fencing")
    if highest > given:
        return Finding(
            "server",
            "bad",
            f"{text}; it obeys no fencing token below {highest}, and this ledger is at {given}: was it restored from "
            "a backup? `ratchet fence --reason …` lets it have its say again, once no other deployer is at work",
        )
    return Finding("server", "ok", text)
