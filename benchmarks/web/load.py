"""What the benchmark asks of the page: addresses that a user opens, requests one by one, and open browsers.

Before each request and while browsers are open the ledger changes, so that nothing is measured that the page had
already drawn.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from ratchet.events.catalogue import CurriculumChanged
from ratchet.ledger import Ledger
from ratchet.ledger.tables import BatchRow, CheckpointRow, OutboxRow, VerdictRow
from ratchet.web.pages import PAGES
from sqlalchemy import func, select

from benchmarks.web.processes import cpu_s

PART = {"hx-request": "true"}
"""The header by which htmx asks for the part of a page that it merges in."""
RARE = "loss 11.2"
"""Text that few events have."""


class Committer:
    """Changes the ledger as a worker does: a verdict and its event, in one transaction."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        with ledger.read() as session:
            self._number = int(session.scalar(select(func.max(VerdictRow.id))) or 0)

    def commit(self) -> None:
        self._number += 1
        with self._ledger.write() as tx:
            tx.session.add(
                VerdictRow(
                    system="curriculum",
                    subject_kind="coverage",
                    subject_id=f"measured-{self._number}",
                    outcome="unchanged",
                    reason="the mix stays",
                    numbers={"n": self._number},
                    cause=None,
                    worker="curriculum@hub+0",
                    created_at=tx.now,
                    took_s=0.1,
                )
            )
            tx.emit(CurriculumChanged(curriculum_id=1))


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds of a page for the process that serves it, and bytes of the whole one."""

    first_ms: float
    whole_ms: float
    part_ms: float | None
    size: int


def addresses(ledger: Ledger) -> dict[str, str]:
    """Addresses by what they show: every page of the menu, the data of charts, details, and the far ends of lists."""
    with ledger.read() as session:
        newest = session.scalar(select(func.max(CheckpointRow.ordinal))) or 0
        big = select(BatchRow.id).where(BatchRow.quarantine_artifact.is_not(None))
        batch = session.scalar(big.order_by(BatchRow.quarantined.desc(), BatchRow.id).limit(1))
        ended = select(OutboxRow.event_id).where(OutboxRow.name == "training.finished")
        event = session.scalar(ended.order_by(OutboxRow.seq.desc()).limit(1))
        begun = select(OutboxRow.event_id).where(OutboxRow.name == "checkpoint.saved")
        first = session.scalar(begun.order_by(OutboxRow.seq).limit(1))
    found = {page.title: page.path for page in PAGES}
    found |= {f"{page.title}: {source}": source for page in PAGES for source in page.sources}
    return found | {
        "a checkpoint": "/checkpoints/3",
        "the newest checkpoint": f"/checkpoints/{newest - 3}",
        "two checkpoints compared": "/checkpoints/compare?a=3&b=4",
        "checkpoints by task, the last page": f"/checkpoints?page={max(1, newest // 50)}&order=asc",
        "a batch": f"/data/batches/{batch}",
        "its quarantine": f"/data/batches/{batch}/quarantine",
        "trained batches, far back": "/data?state=trained&batches=3",
        "a system": "/systems/testing",
        "an event": f"/journal/{event}",
        "an event with many effects": f"/journal/{first}",
        "events with a word": f"/journal?text={RARE}",
        "events of a checkpoint": f"/journal?about=%23{newest // 2}",
    }


def cost(pid: int, url: str, committer: Committer, requests: int, *, has_part: bool = True) -> Cost:
    """What one page costs: the first request by itself, and medians of that many more of each kind."""
    with httpx.Client(trust_env=False, timeout=120) as http:

        def ask(headers: dict[str, str]) -> tuple[float, int]:
            committer.commit()
            before = cpu_s(pid)
            answer = http.get(url, headers=headers)
            took = 1000 * (cpu_s(pid) - before)
            if answer.status_code != 200:
                raise RuntimeError(f"{url}: {answer.status_code} {answer.text[:300]}")
            return took, len(answer.content)

        first, size = ask({})
        wholes, parts = [], []
        for _ in range(requests):  # in turn, so that a busy moment hits both
            wholes.append(ask({})[0])
            if has_part:
                parts.append(ask(PART)[0])
    return Cost(first, statistics.median(wholes), statistics.median(parts) if parts else None, size)


def median_ms(pid: int, url: str, requests: int) -> float:
    """Median CPU milliseconds of a request to another program."""
    with httpx.Client(trust_env=False, timeout=120) as http:
        found = []
        for _ in range(requests):
            before = cpu_s(pid)
            http.get(url).raise_for_status()
            found.append(1000 * (cpu_s(pid) - before))
    return statistics.median(found)


@dataclass(frozen=True)
class Watched:
    """What open browsers cost: the share of a core that the page took, and how often each drew the page anew."""

    share: float
    draws: float


def watch(pid: int, url: str, viewers: int, settle_s: float, seconds: float, commit: Callable[[], None]) -> Watched:
    """That many browsers show the page Now, while the ledger changes every second.

    ``settle_s`` lies between the first open browser and the measurement.
    """
    return asyncio.run(_watch(pid, url, viewers, settle_s, seconds, commit))


async def _watch(
    pid: int, url: str, viewers: int, settle_s: float, seconds: float, commit: Callable[[], None]
) -> Watched:
    drawn = [0] * viewers
    limits = httpx.Limits(max_connections=None)

    async def browser(number: int, http: httpx.AsyncClient) -> None:
        seen = None
        async with http.stream("GET", f"{url}/feed") as feed:
            name = ""
            async for line in feed.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data" and name == "ledger":
                    if seen not in (None, value):
                        (await http.get(f"{url}/", headers=PART)).raise_for_status()
                        drawn[number] += 1
                    seen = value

    async def committing() -> None:
        while True:
            await asyncio.to_thread(commit)
            await asyncio.sleep(1.0)

    async with httpx.AsyncClient(trust_env=False, timeout=120, limits=limits) as http:
        tasks = [asyncio.create_task(browser(number, http)) for number in range(viewers)]
        tasks.append(asyncio.create_task(committing()))
        try:
            await _unless_ended(tasks, settle_s)
            drawn[:] = [0] * viewers
            before, began = cpu_s(pid), time.monotonic()
            await _unless_ended(tasks, seconds)
            took = time.monotonic() - began
            used = cpu_s(pid) - before
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return Watched(used / took, sum(drawn) / viewers)


async def _unless_ended(tasks: list[asyncio.Task[None]], seconds: float) -> None:
    """Wait that long. Raises the error of a browser whose feed has ended."""
    ended, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()
        raise RuntimeError("the page closed a feed")
