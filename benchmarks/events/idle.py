"""What the whole stack costs while nothing happens: Redis, the supervisor, and a worker of every installed system.

    python -m benchmarks.events.idle [--seconds 120] [--metrics]

With ``--metrics`` every worker shows its page, `ratchet discover` runs beside them, and all pages are fetched every 15
seconds, as Prometheus does it. Default settings (canaries, sweeps and timers as shipped), SQLite. CPU time is read from
the processes themselves, so other load on the machine changes little. PSS is Linux's proportional share of memory:
shared pages are split.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
from ratchet.ports import free_port
from ratchet.settings.control import ControlSettings
from ratchet.settings.section import environment
from ratchet.systems import registry

from tests.support.workers import Stack, real_workers

SMOKE = ("--seconds", "0.2", "--settle", "0.2", "--metrics")
"""Arguments of its smallest size, with which a test runs it to its end."""
SCRAPE_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--settle", type=float, default=20.0, help="seconds between the start and the measurement")
    parser.add_argument("--metrics", action="store_true")
    arguments = parser.parse_args()
    port = free_port() if arguments.metrics else 0
    with (
        tempfile.TemporaryDirectory() as home,
        real_workers(
            Path(home) / "home", list(registry.systems()), control=ControlSettings(), metrics_port=port
        ) as stack,
        ExitStack() as hub,
    ):
        found = hub.enter_context(scraped(stack)) if arguments.metrics else {}
        time.sleep(arguments.settle)
        measure(stack, found, arguments.seconds)


def measure(stack: Stack, hub: dict[str, psutil.Process], seconds: float) -> None:
    workers = {name: psutil.Process(member.pid) for name, member in stack.supervisor.processes().items()}
    others = {"supervisor": psutil.Process(stack.supervisor.pid), "redis": psutil.Process(stack.redis.pid)}
    everything = {**workers, **others, **hub}
    before = {name: busy_s(process) for name, process in everything.items()}
    started = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    shares = {name: (busy_s(process) - before[name]) / elapsed for name, process in everything.items()}
    report(shares, {name: pss_mb(process.pid) for name, process in everything.items()}, list(workers), elapsed)


@contextmanager
def scraped(stack: Stack) -> Iterator[dict[str, psutil.Process]]:
    """The hub's service in a process of its own, and a thread here that fetches every page every 15 seconds."""
    port, stop = free_port(), threading.Event()
    command = [sys.executable, "-c", "from ratchet.cli.main import app; app()", "discover", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, **environment(stack.settings)}) as service:
        thread = threading.Thread(target=fetch, args=(f"http://127.0.0.1:{port}", stop))
        thread.start()
        try:
            yield {"discover": psutil.Process(service.pid)}
        finally:
            stop.set()
            thread.join()
            service.terminate()


def fetch(hub: str, stop: threading.Event) -> None:
    while not stop.wait(SCRAPE_S):
        targets = httpx.get(f"{hub}/targets").json()
        pages = [f"http://{entry['targets'][0]}/metrics" for entry in targets]
        sizes = [len(httpx.get(page, timeout=30).content) for page in (*pages, f"{hub}/metrics")]
        print(f"{len(sizes)} pages, {sum(sizes)} bytes", file=sys.stderr)


def busy_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def report(shares: dict[str, float], pss: dict[str, float], workers: list[str], seconds: float) -> None:
    print(f"{len(workers)} workers, idle for {seconds:.0f} s\n")
    print("| process | % of a core | PSS MB |")
    print("|---|---|---|")
    for name in shares:
        print(f"| {name} | {100 * shares[name]:.2f} | {pss[name]:.1f} |")
    print(f"| **all** | **{100 * sum(shares.values()):.2f}** | **{sum(pss.values()):.0f}** |")
    print(f"\nPSS of a worker: median {statistics.median(pss[name] for name in workers):.1f} MB.")


if __name__ == "__main__":
    main()
