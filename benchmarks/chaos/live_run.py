"""A `ratchet run` of the tiny model as a process, seen from outside: its processes, its stores, and whether all of it
works again after a fault.

It is started as a user starts it, and started again whenever it has died. It does not know the faults.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil
from ratchet.bus.connection import connect
from ratchet.errors import RatchetError
from ratchet.ledger import Ledger
from ratchet.ledger.tables import CheckpointRow, VerdictRow, WorkerRow
from ratchet.processes.managed_process import end_with_parent
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings
from ratchet.systems import registry
from ratchet.web.address import announced_page
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import ProgrammingError

from benchmarks.chaos.s3_server import S3Server
from tests.support.postgres import Postgres

TAG = "CHAOS_RUN"
"""The variable by which every process of a run is found, also one that has lost its parents."""
LEASE_S = 4.0
START_S = 900.0
STOP_S = 60.0
RECOVER_S = 600.0
"""Bounds end what hangs; the journal has the seconds. A busy machine imports torch for minutes."""
ANSWER_S = 10.0
NOT_READABLE = (RatchetError, ProgrammingError)
"""The ledger is away, or has no tables yet."""
POLL_S = 0.2
SHOW_S = 30.0
RATCHET = [sys.executable, "-c", "from ratchet.cli.main import app; app()"]
SMALL = {
    "SERVING__PORT": "0",
    "WEB__PORT": "0",
    "SERVING__WATCH_S": "0.5",
    "QUEUE__BATCH_EXAMPLES": "600",
    "QUEUE__LOW_WATER": "1500",
    "QUEUE__HIGH_WATER": "3000",
    "SUITES__FAMILIES": '[{"name": "reverse", "levels": [1, 2, 3]}]',
    "SUITES__PROBE_ITEMS": "30",
    "SUITES__EVAL_ITEMS": "40",
    "SUITES__CONFIRM_ITEMS": "60",
    "SUITES__MAX_NEW_TOKENS": "12",
    "SUITES__GENERAL_PROMPTS": "none",
    "HYPERPARAMS__MAX_LENGTH": "128",
    "HYPERPARAMS__LEARNING_RATE": "3e-3",
    "MINING__SEARCH_ITEMS": "0",
    "CORRECTION__SAMPLES": "0",
    "RETENTION__CHECKPOINTS_GB": "0.2",
    "CONTROL__LEASE_S": str(LEASE_S),
    "CONTROL__TIMER_S": "1",
    "CONTROL__MAX_BACKOFF_S": "1",
    "CONTROL__SWEEP_FACTOR": "0.05",
    "CONTROL__GRACE_S": "5",
    "CONTROL__LIVENESS_S": "60",
    "CONTROL__MAX_KILLS": "1000000",  # the rounds kill, not a subject
}
"""Suites and batches so small that a checkpoint is trained and judged in seconds, and leases of seconds."""


class Stuck(Exception):
    """Something did not come about within its bound. The message says what."""


class LiveRun:
    """One home and the `ratchet run` in it. ``settings`` are variables beside SMALL, ``environment`` any others."""

    def __init__(self, home: Path, settings: Mapping[str, str], environment: Mapping[str, str]):
        self.home = home.resolve()
        told = {f"RATCHET_{name}": value for name, value in {**SMALL, **settings}.items()}
        self.failpoints = self.home.with_name(f"{self.home.name}.failpoints")
        self.failpoints.mkdir(parents=True, exist_ok=True)
        own = {"RATCHET_HOME": str(self.home), "RATCHET_FAILPOINTS": str(self.failpoints), TAG: str(self.home)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        self.environment = {**inherited, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **told, **own, **environment}
        self.settings = Settings(home=self.home)
        self.ledger = Ledger(settings.get("LEDGER__URL") or f"sqlite:///{self.home / 'ledger.db'}?timeout=30")
        self.process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(timeout=ANSWER_S, trust_env=False, verify=False)
        self.ended: list[str] = []
        self._has_worked = False
        self.damaged: set[str] = set()
        """Artifacts that a round has damaged."""
        self.postgres: Postgres | None = None
        self.s3: S3Server | None = None
        self.disk: Path | None = None
        self.clock: Path | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_works(START_S)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def log(self) -> Path:
        return self.home.with_name(f"{self.home.name}.log")

    def start(self) -> None:
        """Start it, without waiting for anything."""
        self._has_worked = False
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*RATCHET, "run"],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=end_with_parent,  # also where this process is killed
            )

    def keep_running(self) -> None:
        """Start it again if it has ended; a predecessor's processes may refuse that for a few seconds. That it ended by
        itself, once it had worked, is noted in ``ended``."""
        code = self.process.poll() if self.process is not None else 0
        if code is None:
            return
        if self._has_worked and self.process is not None and code != -signal.SIGKILL:
            self.ended.append(f"`ratchet run` has ended with exit code {code}: {self.log_tail()}")
        self.start()

    def stop(self) -> None:
        """Stop it as Ctrl-C does. Raises Stuck if it does not end."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Stuck(f"`ratchet run` has not ended {STOP_S:.0f} s after SIGINT") from None
        finally:
            self.process = None if self.process.poll() is not None else self.process

    def end(self) -> None:
        """Stop it, kill whatever is left of it, and close the ledger."""
        with suppress(Stuck):
            self.stop()
        for process in self.tagged():
            with suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.wait()
        self._http.close()
        self.ledger.close()

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-500:] if self.log.exists() else ""

    def tagged(self) -> Iterator[psutil.Process]:
        """Every process of this run, whoever its parent is."""
        mark, home = f"{TAG}={self.home}\0".encode(), f"{self.home}/"
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
                is_redis = "redis" in process.name() or "valkey" in process.name()  # which overwrites its environment
                if mark in environ or (is_redis and any(home in part for part in process.cmdline())):
                    yield process

    def family(self) -> list[psutil.Process]:
        """`ratchet run` and its descendants."""
        if self.process is None or self.process.poll() is not None:
            return []
        try:
            run = psutil.Process(self.process.pid)
            return [run, *run.children(recursive=True)]
        except psutil.Error:
            return []

    def processes(self) -> dict[str, int]:
        """The process ids that there are now, by part: run, supervisor, redis, server, page, fork server, model child,
        and each worker."""
        found: dict[str, int] = {}
        workers = self._workers()
        for process in self.family():
            with suppress(psutil.Error):
                found[self._part(process, workers, found)] = process.pid
        return found

    def _part(self, process: psutil.Process, workers: Mapping[int, str], found: Mapping[str, int]) -> str:
        assert self.process is not None
        line = " ".join(process.cmdline())
        if process.pid == self.process.pid:
            return "run"
        if process.pid in workers:
            return workers[process.pid]
        for module, part in (("ratchet.web.server", "page"), ("ratchet.serving.server", "server")):
            if module in line:
                return part
        if "ratchet.processes.fork_server" in line:
            return "fork server" if process.ppid() == found.get("supervisor") else "model child"
        if "ratchet.processes.supervisor" in line:
            return "supervisor" if process.ppid() == self.process.pid else f"starting {process.pid}"
        return "redis" if "redis" in line or "valkey" in line else f"other {process.pid}"

    def _workers(self) -> dict[int, str]:
        try:
            with self.ledger.read() as session:
                rows = session.execute(select(WorkerRow.pid, WorkerRow.system)).all()
        except NOT_READABLE:
            return {}
        return {row.pid: row.system for row in rows}

    def redis(self) -> Redis:
        """A client of its Redis. Raises Stuck where none was started."""
        try:
            return connect((self.home / "redis" / "url").read_text().strip())
        except OSError as error:
            raise Stuck(f"there is no Redis: {error}") from error

    def endpoint(self) -> str | None:
        return announced_url(self.settings.serving_home)

    def page(self) -> str | None:
        return announced_page(self.settings.web_home)

    def served(self) -> str | None:
        """The checkpoint that the server names as live; None while it does not answer."""
        with suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            live = self._http.get(f"{self.endpoint()}/health").json()["live"]
            return str(live["checkpoint_id"])
        return None

    def made(self) -> tuple[int, int]:
        """How many verdicts and checkpoints there are."""
        with self.ledger.read() as session:
            verdicts = session.scalar(select(func.count()).select_from(VerdictRow)) or 0
            return verdicts, session.scalar(select(func.count()).select_from(CheckpointRow)) or 0

    def wait_works(self, timeout_s: float = RECOVER_S) -> float:
        """Wait until all parts work, and every worker has reported since this call. Returns the seconds that it took.
        Raises Stuck, with what is missing."""
        began, before, missing, shown_s = time.monotonic(), self._reports(), "the ledger", 0.0
        while time.monotonic() - began < timeout_s:
            self.keep_running()
            if before is None:
                before = self._reports()
            else:
                missing = self._missing(before)
            waited_s = time.monotonic() - began
            if not missing:
                self._has_worked = True
                return waited_s
            if waited_s > shown_s + SHOW_S:
                shown_s = waited_s
                print(f"       after {waited_s:.0f} s this does not work yet: {missing}", flush=True)
            time.sleep(POLL_S)
        raise Stuck(f"after {timeout_s:.0f} s this does not work: {missing}")

    def _reports(self) -> dict[str, float] | None:
        """When each system's worker was last seen; None while the ledger is away. Times are compared for equality only,
        since a fault may set the clock back."""
        try:
            with self.ledger.read() as session:
                return {row.system: row.seen_at for row in session.execute(select(WorkerRow.system, WorkerRow.seen_at))}
        except NOT_READABLE:
            return None

    def _missing(self, before: Mapping[str, float]) -> str:
        after = self._reports()
        if after is None:
            return "the ledger"
        silent = {system for system in registry.systems() if after.get(system) == before.get(system)}
        if silent:
            return f"workers {', '.join(sorted(silent))}"
        try:
            self.redis().set("chaos", "1", ex=60)
        except (RatchetError, RedisError, Stuck) as error:
            return str(error)
        if self.served() is None:
            return "the inference server has no live model"
        with suppress(httpx.HTTPError):
            if self._http.get(f"{self.page()}/health").status_code == 200:
                return ""
        return "the page"


def set_clock(file: Path, offset_s: int) -> None:
    """Set the offset of a clock (jumping_clock.c). The file is written in place, since processes map it."""
    mode = "r+b" if file.exists() else "wb"
    with file.open(mode) as opened:
        opened.write(offset_s.to_bytes(8, sys.byteorder, signed=True))


def clock_offset_s(file: Path) -> int:
    return int.from_bytes(file.read_bytes(), sys.byteorder, signed=True)
