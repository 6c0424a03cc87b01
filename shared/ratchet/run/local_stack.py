"""Starts the processes of `ratchet run` on one machine in dependency order: Redis, the ledger, the inference server and
the workers. It keeps them running and stops them in reverse order. When to stop is decided by its caller."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from ratchet.artifacts.artifact_store import artifact_store
from ratchet.backoff import FIRST_S, Backoff, RestartDelay
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.bus.streams import relaying_ledger
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ports import free_port, require_free
from ratchet.processes.messages import ProcessState
from ratchet.processes.supervisor_client import SupervisorClient
from ratchet.run.bootstrap import bootstrap
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings
from ratchet.settings.control import JUDGE, ControlSettings
from ratchet.settings.origins import hand_over
from ratchet.settings.section import environment
from ratchet.systems import registry
from ratchet.web.address import announced_page, forget_page, page_address, require_password

Announce = Callable[[str], None]

SERVER = "server"
PAGE = "web"
"""The Control Room. Nothing depends on it."""


class LocalStack:
    """Redis, ledger, workers and the inference server of one home. Enter it from the main thread, which starts them
    all."""

    def __init__(self, settings: Settings, announce: Announce):
        self.settings, self._announce = settings, announce
        self._stack = ExitStack()
        self._redis: EmbeddedRedis | None = None
        self._supervisor: SupervisorClient | None = None
        self._redis_restart = AnnouncedRestart(announce, settings.control)
        self._supervisor_restart = AnnouncedRestart(announce, settings.control)
        self._page_port, self._page = settings.web.port, ""
        self._is_stopping = False

    def __enter__(self) -> Self:
        require_ports(self.settings)
        require_password(self.settings.web.host, has_password=self.settings.web.password_file is not None)
        self._page_port = page_port(self.settings, self._announce)
        with ExitStack() as stack:
            if self.settings.redis.url is None:
                self._redis = stack.enter_context(EmbeddedRedis.below(self.settings))
            self.ledger = self._open_ledger(stack)
            stack.callback(self._stop_processes)
            forget_page(self.settings.web_home)
            hand_over(self.settings, self.settings.web_home)
            self._announce_page(page_address(self.settings.web.host, self._page_port))
            supervisor = self._start_supervisor()
            self._announce("preparing the base model and the test suites")
            bootstrap(self.settings, self.ledger, artifact_store(self.settings))
            self._start_processes(supervisor)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def check(self) -> dict[str, ProcessState]:
        """The supervised processes by name.

        A Redis or a supervisor that has died is restarted, after a pause that grows if it keeps dying.
        """
        if self._redis is not None and self._redis.pid is None and self._redis_restart.is_due("Redis has exited"):
            self._redis.start()
        self._announce_page(announced_page(self.settings.web_home))
        assert self._supervisor is not None
        try:
            return self._supervisor.processes()
        except TransientError as error:
            if self._is_stopping or not self._supervisor_restart.is_due(str(error)):
                return {}
            self._stop_processes()
            supervisor = self._start_supervisor()
            self._start_processes(supervisor)
            return supervisor.processes()

    def hurry(self) -> None:
        """Call it as soon as the run is asked to stop. Safe in a signal handler."""
        self._is_stopping = True
        if self._supervisor is not None:
            self._supervisor.hurry()

    def kill(self) -> None:
        """Kill the workers and the server at once. Safe in a signal handler."""
        if self._supervisor is not None:
            self._supervisor.kill()

    def endpoint(self) -> str:
        """Where clients reach the model."""
        return announced_url(self.settings.serving_home) or self.settings.serving.base_url

    @property
    def page(self) -> str:
        """Where the Control Room is."""
        return self._page

    def _announce_page(self, address: str | None) -> None:
        """Say where the page is, at first and if it had to take another port."""
        if address is not None and address != self._page:
            self._page = address
            self._announce(f"the Control Room is at {address}")

    def _open_ledger(self, stack: ExitStack) -> Ledger:
        ledger = relaying_ledger(self.settings)
        stack.callback(ledger.close)
        migrate(ledger)
        return ledger

    def _start_supervisor(self) -> SupervisorClient:
        """Start the supervisor and the page, which shows what follows."""
        self._supervisor = supervisor = SupervisorClient(self.settings)
        self._start_module(supervisor, PAGE, "ratchet.web.server", "--port", str(self._page_port), "--or-free")
        return supervisor

    def _start_processes(self, supervisor: SupervisorClient) -> None:
        for name in process_names(self.settings):
            if name == SERVER:
                home = str(self.settings.serving_home)
                self._start_module(supervisor, SERVER, "ratchet.serving.server", "--home", home)
            else:
                supervisor.start_worker(name)

    def _stop_processes(self) -> None:
        if self._supervisor is not None:
            self._supervisor.close(lambda text: self._announce(f"{text} (Ctrl-C again kills them and loses that work)"))

    def _start_module(self, supervisor: SupervisorClient, name: str, module: str, *arguments: str) -> None:
        supervisor.start_command(
            name,
            [sys.executable, "-m", module, *arguments],
            self.settings.log_folder / f"{name}.log",
            server_environment(self.settings),
        )


class AnnouncedRestart:
    """Announces the death of a process and when it is restarted: at first immediately, then after growing pauses."""

    def __init__(self, announce: Announce, control: ControlSettings) -> None:
        backoff = Backoff(FIRST_S, control.max_backoff_s)
        self._announce, self._delay, self._is_down = (
            announce,
            RestartDelay(backoff, time.monotonic(), first_at_once=True),
            False,
        )

    def is_due(self, what: str) -> bool:
        """Call it repeatedly while the process is down. It returns True once, when the process is to be started."""
        now = time.monotonic()
        if not self._is_down:
            self._is_down, pause_s = True, self._delay.died(now)
            self._announce(f"{what.rstrip('.')}: restarting {f'in {pause_s:g} s' if pause_s else 'now'}")
        if not self._delay.is_over(now):
            return False
        self._is_down = False
        self._delay.started(now)
        return True


def process_names(settings: Settings) -> list[str]:
    """Names of the processes that a run starts on this machine: the workers of its roles' systems, and the embedded
    inference server unless the machine is no judge or another server is configured.

    A system that cannot be imported is started too, whatever its role: its worker reports the error, and runs as soon
    as that is fixed.
    """
    roles = settings.placement.roles
    workers = [system.name for system in registry.systems().values() if system.host in roles]
    workers += [name for name in registry.broken() if name not in workers]
    return [*([SERVER] if JUDGE in roles and settings.serving.url is None else []), *workers]


def page_port(settings: Settings, announce: Announce) -> int:
    """The port of the page: the one that is set, or a free one where that is taken by another program."""
    port = settings.web.port
    if port:
        try:
            require_free(port, "web.port")
            return port
        except TransientError as error:
            announce(f"{error} The Control Room takes a free port.")
    return free_port()


def server_environment(settings: Settings) -> dict[str, str]:
    """Environment of a server: the settings, and the number of threads for a model."""
    return {**environment(settings), "OMP_NUM_THREADS": str(settings.placement.threads)}


def require_ports(settings: Settings) -> None:
    """Raise TransientError, naming port, owner and setting, if a port that this run needs is taken."""
    if settings.redis.url is None and settings.redis.port:
        require_free(settings.redis.port, "redis.port")
    if settings.serving.url is None and settings.serving.port:
        require_free(settings.serving.port, "serving.port")
