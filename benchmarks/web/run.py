"""What the Control Room costs: idle, by page, with viewers, and as a report; beside Flower, in the same run.

    python -m benchmarks.web.run                # a long history; writes RESULTS.md and results.json beside it
    python -m benchmarks.web.run --small --dry  # a short one, prints only
    python -m benchmarks.web.run --postgres     # the ledger in PostgreSQL, whose own processes are not counted

The history is made up (1,000 checkpoints, 10,000 batches, 100,000 events, 1,000,000 rows in quarantine), and the page
is `ratchet web` as a process. What is counted is CPU time of that process, so that other work on the machine changes
little. Between two requests the ledger changes, so that every page is drawn anew. The exit code is 1 if a budget is not
kept; a short history has none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

from ratchet.artifacts.artifact_store import artifact_store
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.settings import Settings

from benchmarks.web.load import Committer, Cost, addresses, cost, median_ms, watch
from benchmarks.web.processes import flower, report, rss_mb, shares
from tests.support.pages import Served, environment_of
from tests.support.postgres import postgres_server
from tests.support.synthetic_ledger import FULL, SMALL, Size, build

SMOKE = ("--small", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
PAGE_MS = 100.0
WATCHED_SHARE = 0.01
RSS_MB = 120.0
VIEWERS, SETTLE_S = (5, 50), 6.0
"""Open browsers, and the seconds between the first of them and the measurement."""


@dataclass(frozen=True)
class Figure:
    """A measured value, and what it may be at the most."""

    name: str
    value: float
    unit: str
    budget: float | None = None

    @property
    def is_over(self) -> bool:
        return self.budget is not None and self.value > self.budget

    @property
    def shown(self) -> str:
        return _shown(self.value, self.unit)

    @property
    def verdict(self) -> str:
        return "" if self.budget is None else "over" if self.is_over else "kept"


@dataclass(frozen=True)
class Found:
    """Everything that a run measured. ``peer`` has pairs of the page and Flower."""

    figures: list[Figure]
    pages: dict[str, Cost]
    peer: dict[str, tuple[float, float, str]]

    @property
    def over(self) -> list[str]:
        """What is over its budget."""
        return [figure.name for figure in self.figures if figure.is_over] + [
            name for name, page in self.pages.items() if most_ms(page) > PAGE_MS
        ]


def most_ms(cost: Cost) -> float:
    return max(cost.whole_ms, cost.part_ms or 0.0)


def measure(asked: argparse.Namespace) -> Found:
    seconds, requests = (0.5, 1) if asked.small else (asked.seconds, asked.requests)
    size, numbers, settle_s = (SMALL, (1, 2), 0.5) if asked.small else (FULL, VIEWERS, SETTLE_S)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home, url = stack.enter_context(_home(asked.home or scratch / "home", size, is_postgres=asked.postgres))
        served = Served(home, **({"ledger__url": url} if url else {}))
        stack.callback(served.stop)
        peer_pid, peer_url = stack.enter_context(flower(scratch / "redis"))
        settings = Settings(home=home, **({"ledger": {"url": url}} if url else {}))
        ledger = stack.enter_context(closing(Ledger(settings.ledger_url)))
        committer = Committer(ledger)

        said(f"idle for {seconds:.0f} s")
        idle = shares({"page": served.pid, "flower": peer_pid}, seconds)
        at_start = rss_mb(served.pid)
        figures = [Figure("idle, nobody looks", 100 * idle["page"], "% of a core")]
        figures.append(Figure("memory before the first request", at_start, "MB"))
        pages = {}
        for name, path in addresses(ledger).items():
            pages[name] = cost(served.pid, served.url + path, committer, requests, has_part=".json" not in path)
            said(f"{name}: {most_ms(pages[name]):.0f} ms")
        for viewers in numbers:
            said(f"{viewers} viewers for {seconds:.0f} s")
            seen = watch(served.pid, served.url, viewers, settle_s, seconds, committer.commit)
            budget = WATCHED_SHARE if viewers == min(numbers) else None
            name = (
                f"{viewers} viewers of the page Now, a verdict a second ({60 * seen.draws / seconds:.0f} draws a min)"
            )
            figures.append(Figure(name, 100 * seen.share, "% of a core", 100 * budget if budget else None))
        memory = rss_mb(served.pid)
        figures.append(Figure("memory after all that", memory, "MB", RSS_MB))

        said("ratchet report")
        made = report(environment_of(home, {"ledger__url": url} if url else {}), scratch / "report.html")
        figures.append(Figure("`ratchet report`, CPU", made["cpu_s"], "s"))
        figures.append(Figure("`ratchet report`, peak memory", made["peak_mb"], "MB"))
        figures.append(Figure("`ratchet report`, size", made["size_mb"], "MB"))

        said("Flower")
        whole = median_ms(peer_pid, f"{peer_url}/workers", max(3, requests))
        part = median_ms(peer_pid, f"{peer_url}/workers?json=1", max(3, requests))
        ours = pages["Systems"]
        peer = {
            "idle": (100 * idle["page"], 100 * idle["flower"], "% of a core"),
            "memory": (memory, rss_mb(peer_pid), "MB"),
            "the page of workers, whole": (ours.whole_ms, whole, "ms"),
            "the page of workers, its new state": (ours.part_ms or 0.0, part, "ms"),
        }
    return Found(figures, pages, peer)


@contextmanager
def _home(home: Path, size: Size, *, is_postgres: bool) -> Iterator[tuple[Path, str | None]]:
    """A home with the history, and the ledger's URL where it is in PostgreSQL. A home that exists is taken as it is."""
    if not is_postgres:
        if not (home / "ledger.db").exists():
            _fill(Settings(home=home), size)
        yield home, None
        return
    folder = Path(tempfile.mkdtemp(prefix="ratchet-pg-"))
    folder.chmod(0o755)  # another user runs the server
    try:
        with postgres_server(folder / "server") as server:
            url = server.database()
            _fill(Settings(home=home, ledger={"url": url}), size)
            yield home, url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(settings: Settings, size: Size) -> None:
    said(f"a history of {size.checkpoints:,} checkpoints is made")
    with closing(Ledger(settings.ledger_url)) as ledger:
        migrate(ledger)
        build(ledger, artifact_store(settings), size)


def said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def to_markdown(found: Found, *, has_budgets: bool) -> str:
    lines = ["| figure | measured | budget | verdict |", "|---|---|---|---|"]
    for figure in found.figures:
        budget = _shown(figure.budget, figure.unit) if figure.budget is not None and has_budgets else ""
        lines.append(f"| {figure.name} | {figure.shown} | {budget} | {figure.verdict if has_budgets else ''} |")
    lines += ["", "| page | whole, ms | its part, ms | first, ms | kB | budget, ms | verdict |", "|---|" + "---|" * 6]
    for name, page in found.pages.items():
        part = f"{page.part_ms:.0f}" if page.part_ms is not None else ""
        verdict = "over" if most_ms(page) > PAGE_MS else "kept"
        budget = f"{PAGE_MS:.0f} | {verdict}" if has_budgets else " | "
        sizes = f"{page.whole_ms:.0f} | {part} | {page.first_ms:.0f} | {page.size / 1024:.0f}"
        lines.append(f"| {name} | {sizes} | {budget} |")
    lines += ["", "| beside the peer | the page | Flower | ratio |", "|---|---|---|---|"]
    for name, (ours, theirs, unit) in found.peer.items():
        ratio = f"{ours / theirs:.2f}" if theirs > 0 else "–"
        lines.append(f"| {name} | {_shown(ours, unit)} | {_shown(theirs, unit)} | {ratio} |")
    return "\n".join(lines)


def _shown(value: float, unit: str) -> str:
    digits = 2 if unit == "% of a core" else 1 if unit in ("s", "ms") or value < 10 else 0
    return f"{value:.{digits}f} {unit}"


INTRODUCTION = """# What the Control Room costs

`{command}`, {day}, {cores} cores, Python {python}, one-minute load before the run {load:.1f}{shared}. \
{engine}. The history is made up: {size.checkpoints:,} checkpoints, {size.batches:,} batches, {size.events:,} events, \
{size.quarantined:,} rows in quarantine.

All times are CPU time of the page's process, user and system. A page is asked for {requests} times whole and \
{requests} times as the part that an open browser merges in; the table has the medians. Before each request a \
verdict and an event are committed, so that every page is read and drawn anew. `first` is the first request of all \
for that page, with the compilation of its template and statements. Values of rows that never change, such as the \
scores of a record, are kept by the process, so later requests do not read them again.

Viewers are open feeds (`/feed`), each of which asks for the page Now again when the feed says that the ledger has \
changed, as a browser does, while another process commits a verdict and its event every second. Idle and viewers are \
measured for {seconds:.0f} s each.

The peer is Flower {flower} on an embedded Redis, with one Celery worker that sends its heartbeats; the page of \
workers here is Systems, with eleven.

"""


def introduction(asked: argparse.Namespace, load: float) -> str:
    text = INTRODUCTION.format(
        command="python -m benchmarks.web.run" + (" --postgres" if asked.postgres else ""),
        day=date.today(),
        cores=os.cpu_count(),
        python=platform.python_version(),
        load=load,
        shared=", so other work ran beside it, which raises CPU time, too" if load > 1.0 else "",
        engine="PostgreSQL, whose own processes are not counted" if asked.postgres else "SQLite",
        size=FULL,
        requests=asked.requests,
        seconds=asked.seconds,
        flower=version("flower"),
    )
    return "\n\n".join(fill(paragraph, 120) for paragraph in text.strip().split("\n\n"))


def as_json(found: Found) -> str:
    pages = {name: asdict(page) for name, page in found.pages.items()}
    peer = {name: {"page": ours, "flower": theirs, "unit": unit} for name, (ours, theirs, unit) in found.peer.items()}
    values = {"figures": [asdict(figure) for figure in found.figures], "pages": pages, "peer": peer, "over": found.over}
    return json.dumps(values, indent=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a short history and no budgets, for a test")
    parser.add_argument("--seconds", type=float, default=40.0, help="of idling, and of each number of viewers")
    parser.add_argument("--requests", type=int, default=5, help="of each page, whole and as its part")
    parser.add_argument("--postgres", action="store_true", help="the ledger in PostgreSQL")
    parser.add_argument("--home", type=Path, help="folder for the history, which is made there unless it exists")
    parser.add_argument("--json", action="store_true", help="print values instead of tables")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(asked)
    table = to_markdown(found, has_budgets=not asked.small)
    print(as_json(found) if asked.json else table)
    if not asked.dry and not asked.small:
        (HERE / "RESULTS.md").write_text(f"{introduction(asked, load)}\n\n{table}\n", encoding="utf-8")
        (HERE / "results.json").write_text(as_json(found) + "\n", encoding="utf-8")
    if asked.small or not found.over:
        return 0
    said(f"over budget: {', '.join(found.over)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
