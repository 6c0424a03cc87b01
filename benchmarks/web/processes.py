"""The processes that the benchmark measures, and how much of the processor and of the memory they take.

The CPU time of a process is read from its own clock, so that other work on the machine is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.ports import free_port

PATIENCE_S = 120.0
"""Only ends a start that hangs."""

REPORT = """
import json, os, resource, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(pid, 0)
print(json.dumps({"status": status, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}))
"""
"""A small process that runs another: a child's peak begins at that of the process that has started it."""


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far, also of those that have ended.

    Linux has a clock of each process, by nanoseconds (``clock_getcpuclockid``); psutil's times are by 10 ms.
    """
    if sys.platform == "linux":
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 1024 / 1024)


def shares(pids: Mapping[str, int], seconds: float) -> dict[str, float]:
    """The share of a core that each of the processes takes, while this one waits."""
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return {name: (cpu_s(pid) - before[name]) / took for name, pid in pids.items()}


def report(environment: Mapping[str, str], to: Path) -> dict[str, float]:
    """CPU seconds, peak memory in MB and size in MB of `ratchet report`."""
    ratchet = [sys.executable, "-c", "from ratchet.cli.main import app; app()"]
    command = [sys.executable, "-S", "-c", REPORT, *ratchet, "report", "--to", str(to)]
    done = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    if found.pop("status"):
        raise RuntimeError("`ratchet report` failed")
    return {**found, "size_mb": to.stat().st_size / 1024 / 1024}


@contextmanager
def flower(folder: Path) -> Iterator[tuple[int, str]]:
    """Flower as a process, with one Celery worker that sends its heartbeats; its pid, and its address."""
    port = free_port()
    with EmbeddedRedis(folder) as redis:
        celery = [sys.executable, "-m", "celery", "--broker", redis.url]
        worker = [*celery, "worker", "--pool", "solo", "--task-events", "--hostname", "peer@localhost"]
        page = [*celery, "flower", "--address=127.0.0.1", f"--port={port}", "--persistent=False"]
        with _running(worker), _running(page) as process:
            url = f"http://127.0.0.1:{port}"
            _wait_for(process, f"{url}/workers?json=1", "peer@localhost")
            yield process.pid, url


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A quiet process, which ends with the block."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=dict(os.environ), stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(process: subprocess.Popen[bytes], url: str, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if text in httpx.get(url, trust_env=False).text:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{url} did not show {text} within {PATIENCE_S:.0f} s")
