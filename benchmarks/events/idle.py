"""What the whole stack costs while nothing happens: Redis, the supervisor, and a worker of every installed system.

    python benchmarks/events/idle.py [--seconds 120]

Default settings (canaries, sweeps and timers as shipped), SQLite. CPU time is read from the processes themselves, so
other load on the machine changes little. PSS is Linux's proportional share of memory: shared pages are split.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from ratchet.settings.control import ControlSettings
from ratchet.systems import registry
from ratchet.testing.workers import real_workers

SETTLE_S = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    seconds = parser.parse_args().seconds
    names = list(registry.systems())
    with (
        tempfile.TemporaryDirectory() as home,
        real_workers(Path(home) / "home", names, control=ControlSettings()) as stack,
    ):
        time.sleep(SETTLE_S)
        workers = {name: psutil.Process(member.pid) for name, member in stack.nursery.report().items()}
        others = {"supervisor": psutil.Process(stack.nursery.pid), "redis": psutil.Process(stack.redis.pid)}
        everything = {**workers, **others}
        before = {name: busy_s(process) for name, process in everything.items()}
        started = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - started
        shares = {name: (busy_s(process) - before[name]) / elapsed for name, process in everything.items()}
        report(shares, {name: pss_mb(process.pid) for name, process in everything.items()}, list(workers), elapsed)


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
