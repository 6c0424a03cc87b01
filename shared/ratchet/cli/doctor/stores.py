"""The stores: the ledger, Redis and the artifacts; and the clocks and passwords of those that are elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ratchet.artifacts.artifact_store import artifact_store
from ratchet.bus.connection import connect, redis_trouble, redis_url
from ratchet.bus.embedded_redis import server_executable
from ratchet.cli.doctor.finding import Finding
from ratchet.cli.doctor.passwords import shared_passwords, weak_passwords
from ratchet.cli.doctor.reach import Place, hindrance
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import require_current
from ratchet.run import run_lock
from ratchet.settings import Settings

CLOCK_LIMIT_S = 2.0
NO_ARTIFACT = "0" * 64


def ledger(settings: Settings) -> Finding:
    if settings.ledger.url is None and not (settings.home / "ledger.db").exists():
        return Finding("ledger", "note", "not made yet; the first run makes it")
    with opened(settings) as there:
        require_current(there)
        return Finding("ledger", "ok", f"{there.dialect}, schema up to date")


def redis(settings: Settings) -> Finding:
    if settings.redis.url is None and run_lock.find_run(settings.home) is None:
        return Finding("redis", "ok", f"the next run starts {server_executable()}")
    url = redis_url(settings)
    with hint(url):
        client = connect(url)
        with redis_trouble():
            version = client.info("server").get("redis_version")
    return Finding("redis", "ok", f"version {version} answers")


def artifacts(settings: Settings) -> Finding:
    with hint(settings.artifacts.endpoint or ""):
        artifact_store(settings).exists(NO_ARTIFACT)
    return Finding("artifacts", "ok", settings.artifact_url)


def clocks(settings: Settings) -> Finding:
    """Leases and claims are told by the ledger's clock; this machine's stands in logs and metrics."""
    ahead = {}
    if settings.ledger.url is not None:
        with opened(settings) as there:
            ahead["the ledger's"] = _ahead_of_ledger_s(there)
    if settings.redis.url is not None:
        ahead["Redis's"] = _ahead_of_redis_s(settings)
    return differing(ahead)


def differing(ahead: Mapping[str, float]) -> Finding:
    """What to say of the seconds that this machine's clock is ahead of others."""
    if not ahead:
        return Finding("clock", "ok", "the stores are on this machine")
    said = ", ".join(f"{seconds:+.1f} s against {whose}" for whose, seconds in ahead.items())
    if any(abs(seconds) > CLOCK_LIMIT_S for seconds in ahead.values()):
        return Finding("clock", "note", f"{said}: let all machines follow a time server (timedatectl set-ntp true)")
    return Finding("clock", "ok", said)


def secrets(settings: Settings) -> Finding:
    if weak := weak_passwords(settings):
        text = f"short or guessable: {', '.join(weak)}; compose/make-secrets makes good ones"
        return Finding("secrets", "note", text)
    if shared := shared_passwords(settings):
        return Finding("secrets", "note", f"one password for {' and '.join(shared)}: give each its own")
    return Finding("secrets", "ok", "no password is short, guessable or used twice")


@contextmanager
def opened(settings: Settings) -> Iterator[Ledger]:
    """The ledger as it is, whatever its schema; out of reach, with the reason."""
    there = Ledger(settings.ledger_url)
    try:
        with hint(settings.ledger_url):
            yield there
    finally:
        there.close()


@contextmanager
def hint(url: str) -> Iterator[None]:
    """Whatever is out of reach inside the block is told with what the network says of that address."""
    try:
        yield
    except TransientError as error:
        place = Place.of(url)
        why = hindrance(place) if place is not None else None
        if why is not None:
            raise TransientError(why) from error
        raise


def _ahead_of_ledger_s(ledger: Ledger) -> float:
    """Seconds that this machine's clock is ahead, half the way there and back taken off; connecting is not on it."""
    ledger.now()
    before = time.time()
    theirs = ledger.now()
    return (before + time.time()) / 2 - theirs


def _ahead_of_redis_s(settings: Settings) -> float:
    url = redis_url(settings)
    client = connect(url)
    with hint(url), redis_trouble():
        client.ping()
        before = time.time()
        seconds, microseconds = client.time()
        return (before + time.time()) / 2 - (seconds + microseconds / 1e6)
