"""Checks of what runs: the ledger, Redis, the artifacts, the inference server, and the workers of all machines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import select

from ratchet.artifacts.artifact_store import artifact_store
from ratchet.build import SHARED, Build, package_digest
from ratchet.bus.connection import connect, redis_errors, redis_url
from ratchet.bus.embedded_redis import server_executable
from ratchet.cli.doctor.finding import Endpoint, Finding, connection_problem, connection_problems
from ratchet.cli.doctor.machine import shared_passwords, weak_passwords
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.drills import age_s, last_drill
from ratchet.ledger.health import (
    DAMAGE_SHOWN_S,
    damages_since,
    expected_workers,
    failing_workers,
    last_line,
    waiting_workers,
)
from ratchet.ledger.ledger import counter_value
from ratchet.ledger.migrate import require_current
from ratchet.ledger.tables import DeadLetterRow, WorkerRow
from ratchet.ports import is_free, port_owner
from ratchet.run import run_lock
from ratchet.serving.client import ServingClient
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings
from ratchet.wording import duration

CLOCK_LIMIT_S = 2.0
DAY_S = 86_400.0
NO_ARTIFACT = "0" * 64
DEAD_SHOWN = 3
"""Dead letters that are named; the others are counted."""


def ledger(settings: Settings) -> Finding:
    if settings.ledger.url is None and not (settings.home / "ledger.db").exists():
        return Finding("ledger", "note", "not there yet; the first run creates it")
    with opened(settings) as there:
        require_current(there)
        return Finding("ledger", "ok", f"{there.dialect}, schema up to date")


def redis(settings: Settings) -> Finding:
    if settings.redis.url is None and run_lock.find_run(settings.home) is None:
        return Finding("redis", "ok", f"the next run starts {server_executable()}")
    url = redis_url(settings)
    with explain_unreachable(url):
        client = connect(url)
        with redis_errors():
            version = client.info("server").get("redis_version")
            client.set("ratchet.doctor", "", px=1000)  # a full disk or memory lets it answer, and refuse this
    return Finding("redis", "ok", f"version {version} answers")


def artifacts(settings: Settings) -> Finding:
    with explain_unreachable(settings.artifacts.endpoint or ""):
        artifact_store(settings).exists(NO_ARTIFACT)
    return Finding("artifacts", "ok", settings.artifact_url)


def clocks(settings: Settings) -> Finding:
    """Whether clocks agree. Leases and claims use the ledger's clock; logs and metrics use this machine's."""
    ahead = {}
    if settings.ledger.url is not None:
        with opened(settings) as there:
            ahead["the ledger's"] = _ahead_of_ledger_s(there)
    if settings.redis.url is not None:
        ahead["Redis's"] = _ahead_of_redis_s(settings)
    return differing(ahead)


def differing(ahead: Mapping[str, float]) -> Finding:
    """The finding for how many seconds this machine's clock is ahead of others."""
    if not ahead:
        return Finding("clock", "ok", "the stores are on this machine")
    offsets = ", ".join(f"{seconds:+.1f} s against {whose}" for whose, seconds in ahead.items())
    if any(abs(seconds) > CLOCK_LIMIT_S for seconds in ahead.values()):
        text = f"{offsets}: synchronize all machines with a time server (timedatectl set-ntp true)"
        return Finding("clock", "note", text)
    return Finding("clock", "ok", offsets)


def secrets(settings: Settings) -> Finding:
    if weak := weak_passwords(settings):
        text = f"short or guessable: {', '.join(weak)}; compose/make-secrets creates strong ones"
        return Finding("secrets", "note", text)
    if shared := shared_passwords(settings):
        return Finding("secrets", "note", f"one password for {' and '.join(shared)}: give each its own password")
    return Finding("secrets", "ok", "no password is short, guessable or used twice")


@contextmanager
def opened(settings: Settings) -> Iterator[Ledger]:
    """The ledger, whatever its schema. A TransientError names the network problem."""
    there = Ledger(settings.ledger_url)
    try:
        with explain_unreachable(settings.ledger_url):
            yield there
    finally:
        there.close()


@contextmanager
def explain_unreachable(url: str) -> Iterator[None]:
    """Replace a TransientError in the block by the network's reason, if the URL's host cannot be connected to."""
    try:
        yield
    except TransientError as error:
        endpoint = Endpoint.of(url)
        why = connection_problem(endpoint) if endpoint is not None else None
        if why is not None:
            raise TransientError(why) from error
        raise


def _ahead_of_ledger_s(ledger: Ledger) -> float:
    """Seconds that this machine's clock is ahead, corrected by half the round trip; the connection is open before."""
    ledger.now()
    before = time.time()
    theirs = ledger.now()
    return (before + time.time()) / 2 - theirs


def _ahead_of_redis_s(settings: Settings) -> float:
    url = redis_url(settings)
    client = connect(url)
    with explain_unreachable(url), redis_errors():
        client.ping()
        before = time.time()
        seconds, microseconds = client.time()
        return (before + time.time()) / 2 - (seconds + microseconds / 1e6)


def server(settings: Settings) -> Finding:
    port, running = settings.serving.port, run_lock.find_run(settings.home)
    if settings.serving.url is not None:
        return _check_server(settings, f"external, at {settings.serving.url}", is_needed=running is not None)
    if running is not None:
        return _check_server(settings, f"part of the run, {running}", is_needed=True)
    if port and not is_free(port):
        return Finding("server", "bad", f"port {port} is taken by {port_owner(port)}: set serving.port to a free one")
    return Finding("server", "ok", f"port {port or 'any'} is free")


def _check_server(settings: Settings, text: str, *, is_needed: bool) -> Finding:
    """Whether a running server answers, accepts the token of /admin, and accepts this ledger's fencing tokens.

    The ledger's fencing tokens are lower after a restore from a backup. A server that hangs reports it and is
    restarted; if that repeats, its log shows why. An active run needs the server.
    """
    try:
        with ServingClient.from_settings(settings.serving, settings.serving_home) as client:
            highest = client.health().highest_fencing_token
            client.ping()
    except TransientError as error:
        url = settings.serving.url or announced_url(settings.serving_home) or settings.serving.base_url
        endpoint = Endpoint.of(url)
        why = (connection_problem(endpoint) if endpoint is not None else None) or str(error)
        found = f"{text}; it does not answer: {why}"
        if not is_needed:
            return Finding("server", "note", found)
        return Finding("server", "bad", f"{found}. A server that has just been started may need a minute; see its log")
    with opened(settings) as ledger, ledger.read() as session:
        given = counter_value(session, "fencing")
    if highest > given:
        return Finding(
            "server",
            "bad",
            f"{text}; it accepts no fencing token below {highest}, and this ledger is at {given}: was it restored from "
            "a backup? `ratchet deploy reset-fencing --reason …` makes the server accept it"
            ", once no other deployer runs",
        )
    return Finding("server", "ok", text)


def versions(settings: Settings) -> Finding:
    """Whether all present workers run this version and the same build of it."""
    there, _ = _workers(settings)
    here = Build.of(SHARED).version
    if not there:
        return Finding("versions", "ok", f"{here} here; there are no workers yet")
    other = _other_builds([(worker, Build.parse(worker.version)) for worker in there], here)
    if other:
        others = "; ".join(f"{host} runs {build} ({', '.join(names)})" for (host, build), names in other.items())
        text = f"{here} here, but {others}: bring all machines to one commit, with `up -d --build` on each"
        return Finding("versions", "note", text)
    hosts = sorted({worker.host for worker in there})
    return Finding("versions", "ok", f"{here} here and on all of {', '.join(hosts)}")


def _other_builds(there: Sequence[tuple[WorkerRow, Build]], here: str) -> dict[tuple[str, str], list[str]]:
    """Systems by host and build, where the build differs from the one here.

    A service is compared with what is installed here, or else with the majority of its workers.
    """
    other: dict[tuple[str, str], list[str]] = {}
    common = {
        service: package_digest(service) or _most(service, there)
        for service in {b.service for _, b in there if b.service}
    }
    for worker, build in there:
        if build.version != here:
            other.setdefault((worker.host, build.version), []).append(worker.system)
        elif build.service and build.digest != common[build.service]:
            other.setdefault((worker.host, f"another {build.service}, {build.digest}"), []).append(worker.system)
    return other


def _most(service: str, there: Sequence[tuple[WorkerRow, Build]]) -> str:
    return Counter(build.digest for _, build in there if build.service == service).most_common(1)[0][0]


def workers(settings: Settings) -> Finding:
    """Whether a worker is missing. A worker that reported a stop is not.

    A worker of this home's run is restarted within seconds, so its absence is bad.
    """
    there, missing = _workers(settings)
    if missing:
        now = max(worker.seen_at for worker in (*there, *missing))
        absent = ", ".join(f"{worker.name} ({duration(now - worker.seen_at)})" for worker in missing)
        text = f"{len(there)} present; not seen for a while: {absent}: check that machine, or `ratchet logs SYSTEM`"
        is_bad = any(_belongs_to_run(worker, settings) for worker in missing)
        return Finding("workers", "bad" if is_bad else "note", text)
    return Finding("workers", "ok", f"{len(there)} present, none missing")


def _belongs_to_run(worker: WorkerRow, settings: Settings) -> bool:
    """Whether this home's active run has started it: the lock file is written once, when a run begins."""
    if worker.host != settings.placement.machine or run_lock.find_run(settings.home) is None:
        return False
    return worker.started_at >= (settings.home / run_lock.LOCK_FILE).stat().st_mtime


def failures(settings: Settings) -> Finding:
    """Whether a worker fails at each start, with its traceback, or waits; what is damaged; and what was given up."""
    if _has_no_ledger(settings):
        return Finding("failures", "ok", "no worker has been started yet")
    with opened(settings) as ledger:
        require_current(ledger)
        now = ledger.now()
        with ledger.read() as session:
            failed, waits = failing_workers(session, now), waiting_workers(session, now)
            damages = damages_since(session, now - DAMAGE_SHOWN_S)
            dead = list(session.scalars(select(DeadLetterRow).where(DeadLetterRow.resolved_at.is_(None))))
    if failed:
        text = "\n".join(
            f"{w.name} has failed {w.failures} times in a row, and is restarted:\n{w.error}" for w in failed
        )
        return Finding("failures", "bad", text.rstrip())
    noted = [f"{w.name} waits: {w.error}" for w in waits]
    noted += [f"{damage.error} {damage.consequence}" for damage in damages]
    noted += [f"{d.system} gave up {d.subject_kind} {d.subject_id}: {last_line(d.error)}" for d in dead[:DEAD_SHOWN]]
    if dead:
        noted.append(f"{len(dead)} dead letter{'s' * (len(dead) > 1)} in all: `ratchet dead list`")
    if noted:
        return Finding("failures", "note", "; ".join(noted))
    return Finding("failures", "ok", "no worker fails at its start or is waiting, nothing is damaged or given up")


def drill(settings: Settings) -> Finding:
    """How the last rollback drill ended, and whether another one is due."""
    if _has_no_ledger(settings):
        return Finding("drill", "ok", "there is nothing to roll back yet")
    with opened(settings) as ledger:
        require_current(ledger)
        now = ledger.now()
        with ledger.read() as session:
            last, age = last_drill(session), age_s(session, now)
    if last is not None and last.outcome != "caught":
        return Finding("drill", "note", f"the last rollback drill: {last.outcome}: {last.detail}")
    if age is not None and age > settings.serving.drill_days * DAY_S:
        since = "the last one" if last is not None else "the first run"
        text = f"{duration(age)} since {since} (serving.drill_days is {settings.serving.drill_days:g}): "
        return Finding("drill", "note", text + "run `ratchet drill rollback`")
    if last is None or last.finished_at is None:
        return Finding("drill", "ok", "no rollback drill yet: `ratchet drill rollback`")
    return Finding("drill", "ok", f"the last rollback drill was caught {duration(now - last.finished_at)} ago")


def pages(settings: Settings) -> Finding:
    """Whether the metrics pages can be reached from here, as Prometheus on the hub must."""
    there, _ = _workers(settings)
    endpoints = {Endpoint.of(worker.metrics_url): worker.name for worker in there if worker.metrics_url is not None}
    asked = {endpoint: name for endpoint, name in endpoints.items() if endpoint is not None}
    failed = connection_problems(asked)
    if failed:
        problems = "; ".join(f"{asked[endpoint]}: {why}" for endpoint, why in failed.items())
        return Finding("metrics", "note", f"{problems} (matters only on the hub, where Prometheus fetches them)")
    return Finding("metrics", "ok", f"{len(asked)} of {len(there)} workers show metrics, and can be reached from here")


def _workers(settings: Settings) -> tuple[list[WorkerRow], list[WorkerRow]]:
    """Present and missing workers. Those that reported a stop are in neither list; both are empty without a ledger."""
    if _has_no_ledger(settings):
        return [], []
    with opened(settings) as ledger:
        require_current(ledger)
        with ledger.read() as session:
            return expected_workers(session, ledger.now())


def _has_no_ledger(settings: Settings) -> bool:
    return settings.ledger.url is None and not (settings.home / "ledger.db").exists()
