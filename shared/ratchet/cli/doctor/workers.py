"""The workers of all machines, as the ledger's register has them: their versions, and their pages for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import select

from ratchet.build import SHARED, Build, package_digest
from ratchet.cli.doctor.finding import Finding
from ratchet.cli.doctor.reach import Place, hindrances
from ratchet.cli.doctor.stores import opened
from ratchet.cli.output import duration
from ratchet.ledger import Ledger
from ratchet.ledger.health import FORGOTTEN_S, PRESENT_S, failing_workers, is_expected, waiting_workers
from ratchet.ledger.migrate import require_current
from ratchet.ledger.tables import WorkerRow
from ratchet.run import run_lock
from ratchet.settings import Settings


def versions(settings: Settings) -> Finding:
    """Whether all workers that are there run this version, and of it the same build."""
    there, _ = _workers(settings)
    here = Build.of(SHARED).version
    if not there:
        return Finding("versions", "ok", f"{here} here; no worker is there yet")
    other = _other_builds([(worker, Build.parse(worker.version)) for worker in there], here)
    if other:
        said = "; ".join(f"{host} runs {build} ({', '.join(names)})" for (host, build), names in other.items())
        text = f"{here} here, but {said}: bring all machines to one commit, with `up -d --build` on each"
        return Finding("versions", "note", text)
    hosts = sorted({worker.host for worker in there})
    return Finding("versions", "ok", f"{here} here and on all of {', '.join(hosts)}")


def _other_builds(there: Sequence[tuple[WorkerRow, Build]], here: str) -> dict[tuple[str, str], list[str]]:
    """Systems by host and build, where that is not the one from here.

    A service is compared with what is installed here of it, or else with the most of its workers.
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
    """Whether a worker that should be there is missing; one that said that it stopped is not.

    One that the run in this home has started should be there for certain: it is restarted within seconds.
    """
    there, missing = _workers(settings)
    if missing:
        now = max(worker.seen_at for worker in (*there, *missing))
        said = ", ".join(f"{worker.name} ({duration(now - worker.seen_at)})" for worker in missing)
        text = f"{len(there)} are there; not seen for a while: {said}: look at that machine, or `ratchet logs SYSTEM`"
        is_bad = any(_belongs_to_run(worker, settings) for worker in missing)
        return Finding("workers", "bad" if is_bad else "note", text)
    return Finding("workers", "ok", f"{len(there)} are there, none is missing")


def _belongs_to_run(worker: WorkerRow, settings: Settings) -> bool:
    """Whether the run that is going on in this home has started it: the lock is written once, when a run begins."""
    if worker.host != settings.placement.machine or run_lock.find_run(settings.home) is None:
        return False
    return worker.started_at >= (settings.home / run_lock.LOCK_FILE).stat().st_mtime


def failures(settings: Settings) -> Finding:
    """Whether a worker fails each time that it is started, with its traceback, or waits for something."""
    if _has_no_ledger(settings):
        return Finding("failures", "ok", "no worker has been started yet")
    with opened(settings) as ledger:
        require_current(ledger)
        now = ledger.now()
        with ledger.read() as session:
            failed, waits = failing_workers(session, now), waiting_workers(session, now)
    if failed:
        said = "\n".join(
            f"{w.name} has failed {w.failures} times in a row, and is started again:\n{w.error}" for w in failed
        )
        return Finding("failures", "bad", said.rstrip())
    if waits:
        return Finding("failures", "note", "; ".join(f"{w.name} waits: {w.error}" for w in waits))
    return Finding("failures", "ok", "no worker fails at its start or waits for something")


def pages(settings: Settings) -> Finding:
    """Whether the pages of metrics can be reached from here, as Prometheus must on the hub."""
    there, _ = _workers(settings)
    places = {Place.of(worker.metrics_url): worker.name for worker in there if worker.metrics_url is not None}
    asked = {place: name for place, name in places.items() if place is not None}
    failed = hindrances(asked)
    if failed:
        said = "; ".join(f"{asked[place]}: {why}" for place, why in failed.items())
        return Finding("metrics", "note", f"{said} (matters on the hub alone, whose Prometheus fetches them)")
    return Finding("metrics", "ok", f"{len(asked)} of {len(there)} workers show metrics, and can be reached from here")


def _workers(settings: Settings) -> tuple[list[WorkerRow], list[WorkerRow]]:
    """Those that are there, and those that did not say that they stopped and are not; none without a ledger."""
    if _has_no_ledger(settings):
        return [], []
    with opened(settings) as ledger:
        require_current(ledger)
        return _by_presence(ledger)


def _has_no_ledger(settings: Settings) -> bool:
    return settings.ledger.url is None and not (settings.home / "ledger.db").exists()


def _by_presence(ledger: Ledger) -> tuple[list[WorkerRow], list[WorkerRow]]:
    now = ledger.now()
    query = select(WorkerRow).where(is_expected(), WorkerRow.seen_at > now - FORGOTTEN_S).order_by(WorkerRow.name)
    with ledger.read() as session:
        rows = list(session.scalars(query))
    return [w for w in rows if now - w.seen_at < PRESENT_S], [w for w in rows if now - w.seen_at >= PRESENT_S]
