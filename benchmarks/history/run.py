"""What a long history costs: every command that reads, sweep, collector, page, and the retention of old events.

    python -m benchmarks.history.run                # a thousand checkpoints and a tenth of them; writes its results
    python -m benchmarks.history.run --postgres     # the same in PostgreSQL, whose processes are counted, too
    python -m benchmarks.history.run --small --dry  # two short ones, prints only

The histories are made up (tests/support/synthetic_ledger): 1,000 checkpoints, 20,000 batches, 5 million events and 3
million rows in quarantine, and a tenth of each. Commands run in one process without their imports, pages are those of
`ratchet web` as a process. Bounds are on CPU time, so that other work on the machine changes little. The exit code is 1
if one is not kept; short histories have none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from textwrap import fill

import psutil
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.settings import Settings
from ratchet.systems import registry

from benchmarks.history.readers import AT_REST, named_home, readings
from benchmarks.web.load import Committer, addresses, cost
from tests.support.pages import Served
from tests.support.postgres import postgres_server
from tests.support.synthetic_ledger import SMALL, THOUSAND, Size, build

SMOKE = ("--small", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
TENTH = Size(*(value // 10 for value in asdict(THOUSAND).values()))
SMALLEST = Size(checkpoints=8, batches=20, events=100, quarantined=10)
PAGE_MS = 150.0
"""Half as much again as the budget of benchmarks/web, whose history has a fiftieth of the events."""
IDLE_SHARE = 2.0
"""Per cent of a core that all sweeps, timers and scrapes may take, at their intervals, while nothing happens."""
SCRAPE_S = 15.0
SERVER_FACTOR = 2.0


@dataclass(frozen=True)
class Measured:
    """What one reading takes, in milliseconds, on the whole history and on a tenth of it."""

    group: str
    name: str
    cpu_ms: float
    wall_ms: float
    bound_ms: float
    tenth_cpu_ms: float

    @property
    def is_over(self) -> bool:
        return self.cpu_ms > self.bound_ms


@dataclass(frozen=True)
class Found:
    """What a run measured. ``idle_share`` is in per cent of a core, of the whole history and of a tenth."""

    figures: list[Measured]
    idle_share: tuple[float, float]
    idle_bound: float
    ledger_mb: tuple[float, float]

    @property
    def over(self) -> list[str]:
        idle = ["idle"] if self.idle_share[0] > self.idle_bound else []
        return [figure.name for figure in self.figures if figure.is_over] + idle


@dataclass(frozen=True)
class History:
    """A history with what runs it: ``url`` and ``server`` (the pid of its first process) where it is in PostgreSQL."""

    settings: Settings
    url: str | None
    server: int | None

    @property
    def factor(self) -> float:
        """Of the bounds: a server does the same work in processes of its own, and talks to this one."""
        return 1.0 if self.server is None else SERVER_FACTOR

    def cpu_s(self) -> float:
        """CPU seconds of this process so far, and of all processes of the server, also of those that have ended."""
        return time.process_time() + (_family_cpu_s(self.server) if self.server is not None else 0.0)


def _family_cpu_s(pid: int) -> float:
    process = psutil.Process(pid)
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
            total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return float(total)


Timed = dict[tuple[str, str], tuple[float, float, float]]
"""CPU and wall milliseconds and the bound, by group and name."""


def measure(asked: argparse.Namespace) -> Found:
    sizes = (SMALL, SMALLEST) if asked.small else (THOUSAND, TENTH)
    found: list[Timed] = []
    megabytes = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder) as scratch, _history(Path(scratch), size, asked) as history:
            found.append(_timed(history, Path(scratch), asked, has_pages=not (asked.small and found)))
            megabytes.append(_ledger_mb(history))
    whole, tenth = found
    figures = [
        Measured(group, name, cpu, wall, bound, tenth.get((group, name), (0.0, 0.0, 0.0))[0])
        for (group, name), (cpu, wall, bound) in whole.items()
    ]
    bound = IDLE_SHARE * (SERVER_FACTOR if asked.postgres else 1.0)
    return Found(figures, (_idle_share(whole), _idle_share(tenth)), bound, (megabytes[0], megabytes[1]))


def _timed(history: History, scratch: Path, asked: argparse.Namespace, *, has_pages: bool) -> Timed:
    found: Timed = {}
    with named_home(history.settings, history.url), closing(Ledger(history.settings.ledger_url)) as ledger:
        for reading in readings(history.settings, ledger, scratch):
            cpu, wall = _least(history, reading.read, 0 if asked.small else asked.times)
            found[reading.group, reading.name] = (cpu, wall, reading.bound_ms * history.factor)
            said(f"{reading.name}: {cpu:.1f} ms")
        if has_pages:
            for name, cpu, wall in _pages(history, ledger, 1 if asked.small else asked.times):
                found["page", name] = (cpu, wall, PAGE_MS * history.factor)
                said(f"{name}: {cpu:.1f} ms")
    return found


def _least(history: History, read: Callable[[], object], times: int) -> tuple[float, float]:
    """CPU and wall milliseconds, after a first time that imports and compiles, which counts only if ``times`` is 0.
    Other work on the machine only adds."""
    if times:
        read()
    cpus, walls = [], []
    for _ in range(max(times, 1)):
        before, began = history.cpu_s(), time.perf_counter()
        read()
        walls.append(1_000 * (time.perf_counter() - began))
        cpus.append(1_000 * (history.cpu_s() - before))
    return min(cpus), min(walls)


def _pages(history: History, ledger: Ledger, times: int) -> Iterator[tuple[str, float, float]]:
    served = Served(history.settings.home, **({"ledger__url": history.url} if history.url else {}))
    try:
        committer = Committer(ledger)
        for name, path in addresses(ledger).items():
            before, began = _server_cpu_s(history), time.perf_counter()
            page = cost(served.pid, served.url + path, committer, times, has_part=False)
            requests = times + 1
            theirs = 1_000 * (_server_cpu_s(history) - before) / requests
            yield name, page.whole_ms + theirs, 1_000 * (time.perf_counter() - began) / requests
    finally:
        served.stop()


def _server_cpu_s(history: History) -> float:
    return _family_cpu_s(history.server) if history.server is not None else 0.0


def _idle_share(found: Timed) -> float:
    """Per cent of a core: each sweep at its interval, the relay and the claims at each worker's timer, and scrapes."""
    timer_s = Settings().control.timer_s
    systems = registry.systems()
    share = 0.0
    for system in systems.values():
        share += sum(found["sweep", f"{system.name}: {lane.name}"][0] for lane in system.lanes) / system.sweep_s
    share += len(systems) * found["sweep", "relay of the outbox, idle"][0] / timer_s
    share += found["sweep", "claims of all systems"][0] / timer_s
    share += found["metrics", AT_REST][0] / SCRAPE_S
    return share / 10


@contextmanager
def _history(scratch: Path, size: Size, asked: argparse.Namespace) -> Iterator[History]:
    if not asked.postgres:
        home = asked.folder / f"{size.checkpoints}" if asked.folder is not None else scratch / "home"
        if not home.exists():
            draft = home.with_name(f"{home.name}-draft")
            _fill(Settings(home=draft), size)
            draft.rename(home)
        yield History(Settings(home=home), None, None)
        return
    folder = Path(tempfile.mkdtemp(prefix="ratchet-pg-", dir=asked.folder))
    folder.chmod(0o755)  # another user runs the server
    try:
        with postgres_server(folder / "server") as server:
            url = server.database()
            settings = Settings(home=scratch / "home", ledger={"url": url})
            _fill(settings, size)
            pid = int((folder / "server" / "data" / "postmaster.pid").read_text().split()[0])
            yield History(settings, url, pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(settings: Settings, size: Size) -> None:
    said(f"a history of {size.checkpoints:,} checkpoints and {size.events:,} events is made")
    began = time.process_time()
    with closing(Ledger(settings.ledger_url)) as ledger:
        migrate(ledger)
        build(ledger, artifact_store(settings), size)
        with ledger.engine.connect() as connection:
            if ledger.dialect == "postgresql":  # as its autovacuum does after a while
                connection.exec_driver_sql("ANALYZE")
                connection.commit()
    said(f"made in {time.process_time() - began:.0f} s")


def _ledger_mb(history: History) -> float:
    with closing(Ledger(history.settings.ledger_url)) as ledger, ledger.engine.connect() as connection:
        if ledger.dialect == "postgresql":
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
        else:
            pages, bytes_each = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
            )
            size = pages * bytes_each
    return float(size) / 1_000_000


def said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def to_markdown(found: Found, *, has_bounds: bool) -> str:
    head = "| kind | what | CPU, ms | wall, ms | bound, ms | verdict | CPU at a tenth, ms | growth |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for figure in found.figures:
        verdict = "over" if figure.is_over else "kept"
        bound = f"{figure.bound_ms:,.0f} | {verdict}" if has_bounds else " | "
        growth = f"{figure.cpu_ms / figure.tenth_cpu_ms:.1f}×" if figure.tenth_cpu_ms else "–"
        lines.append(
            f"| {figure.group} | {figure.name} | {figure.cpu_ms:,.1f} | {figure.wall_ms:,.1f} | {bound} "
            f"| {figure.tenth_cpu_ms:,.1f} | {growth} |"
        )
    whole, tenth = found.idle_share
    verdict = "over" if whole > found.idle_bound else "kept"
    lines += ["", "| at rest | whole | a tenth | bound | verdict |", "|---|---|---|---|---|"]
    bound = f"{found.idle_bound:.2f} | {verdict}" if has_bounds else " | "
    lines.append(f"| sweeps, timers and scrapes, % of a core | {whole:.2f} | {tenth:.2f} | {bound} |")
    lines.append(f"| the ledger, MB | {found.ledger_mb[0]:,.0f} | {found.ledger_mb[1]:,.0f} | | |")
    return "\n".join(lines)


INTRODUCTION = """# What a thousand checkpoints cost

`{command}`, {day}, {cores} cores, Python {python}, one-minute load before the run {load:.1f}{shared}. \
{engine}. The history is made up: {size.checkpoints:,} checkpoints, {size.batches:,} batches, {size.events:,} events, \
{size.quarantined:,} rows in quarantine; beside it a tenth of each.

A figure is the least of {times} readings after a first one, since other work only adds; of a page it is the median. \
Commands run in one process without their imports (benchmarks/cli has these). A sweep is the query by which a \
system finds its work. A page is read and drawn anew, \
since the ledger changes before each request. At rest, every sweep runs at its interval, each worker's timer relays \
and asks for due claims, and Prometheus scrapes every {scrape:.0f} s. `ratchet doctor` also looks at the machine.

"""


def introduction(asked: argparse.Namespace, load: float) -> str:
    text = INTRODUCTION.format(
        command="python -m benchmarks.history.run" + (" --postgres" if asked.postgres else ""),
        day=date.today(),
        cores=os.cpu_count(),
        python=platform.python_version(),
        load=load,
        shared=", so other work ran beside it, which raises CPU and wall time" if load > 1.0 else "",
        engine="PostgreSQL, whose own processes are counted, so that each bound is twice that of SQLite"
        if asked.postgres
        else "SQLite",
        size=THOUSAND,
        times=asked.times,
        scrape=SCRAPE_S,
    )
    return "\n\n".join(fill(paragraph, 120) for paragraph in text.strip().split("\n\n"))


def as_json(found: Found) -> str:
    return json.dumps({**asdict(found), "over": found.over}, indent=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="short histories and no bounds, for a test")
    parser.add_argument("--times", type=int, default=5, help="how often each reading is timed")
    parser.add_argument("--postgres", action="store_true", help="the ledger in PostgreSQL")
    parser.add_argument("--folder", type=Path, help="keeps the histories, some 3 GB, for the next run")
    parser.add_argument("--json", action="store_true", help="print values instead of tables")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(asked)
    table = to_markdown(found, has_bounds=not asked.small)
    print(as_json(found) if asked.json else table)
    if not asked.dry and not asked.small:
        end = "-postgres" if asked.postgres else ""
        (HERE / f"RESULTS{end}.md").write_text(f"{introduction(asked, load)}\n\n{table}\n", encoding="utf-8")
        (HERE / f"results{end}.json").write_text(as_json(found) + "\n", encoding="utf-8")
    if asked.small or not found.over:
        return 0
    said(f"over its bound: {', '.join(found.over)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
