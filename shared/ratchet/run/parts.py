"""The parts of a run on one machine, started in the order of their needs and stopped in the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ratchet.artifacts.configured import artifact_store
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.bus.outbox import relaying_ledger
from ratchet.bus.ports import require_free
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.run.bootstrap import bootstrap
from ratchet.serving.home import announced_url
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings
from ratchet.settings.reveal import environment
from ratchet.systems import registry
from ratchet.worker.nursery import Member, Nursery
from ratchet.worker.offspring import WELL_AFTER_S

Say = Callable[[str], None]

SERVER = "server"
JUDGING_HOST = "3090"


class Parts:
    """Redis, ledger, workers and the inference server of one home. Entering starts them all, from the main thread."""

    def __init__(self, settings: Settings, say: Say):
        self.settings, self._say = settings, say
        self._stack = ExitStack()
        self._redis: EmbeddedRedis | None = None
        self._nursery: Nursery | None = None
        self._redis_pause = RestartPause(say, settings.control)
        self._nursery_pause = RestartPause(say, settings.control)

    def __enter__(self) -> Self:
        require_ports(self.settings)
        with ExitStack() as stack:
            if self.settings.redis.url is None:
                self._redis = stack.enter_context(EmbeddedRedis.below(self.settings))
            self.ledger = self._open_ledger(stack)
            self._say("preparing the base model and the test suites")
            bootstrap(self.settings, self.ledger, artifact_store(self.settings))
            stack.callback(self._stop_members)
            self._start_members()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def tend(self) -> dict[str, Member]:
        """The supervised processes. Redis, or the supervisor with all of them, is started again if it has died, after a
        pause that grows while that happens again and again."""
        if self._redis is not None and self._redis.pid is None and self._redis_pause.is_over("Redis has died"):
            self._redis.start()
        assert self._nursery is not None
        try:
            members = self._nursery.report()
        except TransientError as error:
            if not self._nursery_pause.is_over(str(error)):
                return {}
            self._stop_members()
            return self._start_members().report()
        return members

    def kill(self) -> None:
        """End the workers and the server at once, whatever they are at. Safe in a signal handler."""
        if self._nursery is not None:
            self._nursery.kill()

    def endpoint(self) -> str:
        """Where clients reach the model."""
        return announced_url(self.settings.serving_home) or self.settings.serving.base_url

    def _open_ledger(self, stack: ExitStack) -> Ledger:
        ledger = relaying_ledger(self.settings)
        stack.callback(ledger.close)
        migrate(ledger)
        return ledger

    def _start_members(self) -> Nursery:
        self._nursery = nursery = Nursery(self.settings)
        self._start_server(nursery)
        self._start_workers(nursery)
        return nursery

    def _stop_members(self) -> None:
        if self._nursery is not None:
            self._nursery.close(lambda text: self._say(f"{text} (Ctrl-C again ends it at once, and loses that)"))

    def _start_server(self, nursery: Nursery) -> None:
        if SERVER not in members(self.settings):
            return
        home = self.settings.serving_home
        nursery.command(
            SERVER,
            [sys.executable, "-m", "ratchet.serving.server", "--home", str(home)],
            self.settings.log_folder / f"{SERVER}.log",
            server_environment(self.settings),
        )

    def _start_workers(self, nursery: Nursery) -> None:
        for name in members(self.settings):
            if name != SERVER:
                nursery.worker(name)


@dataclass
class RestartPause:
    """The pause before something that has died is started again: none at first, then doubling while it keeps dying."""

    say: Say
    control: ControlSettings
    _wait_s: float = 0.0
    _died_at: float | None = None
    _started_at: float = field(default_factory=time.monotonic)

    def is_over(self, what: str) -> bool:
        """Asked again and again while it is dead. True once, when it is to be started; says what has happened."""
        now = time.monotonic()
        if self._died_at is None:
            self._died_at = now
            if now - self._started_at >= WELL_AFTER_S:
                self._wait_s = 0.0
            when = f"in {self._wait_s:g} s" if self._wait_s else "at once"
            self.say(f"{what.rstrip('.')}: it is started again {when}")
        if now - self._died_at < self._wait_s:
            return False
        self._wait_s = min(max(2 * self._wait_s, self.control.backoff_first_s), self.control.backoff_last_s)
        self._died_at, self._started_at = None, now
        return True


def members(settings: Settings) -> list[str]:
    """What a run starts on this machine: the workers of its roles' systems, and the embedded inference server, unless
    the machine judges nothing or another server is named.

    A system that cannot be imported is started as well, in whatever role it may be: its worker says why it fails, and
    works as soon as that is mended."""
    roles = settings.placement.roles
    workers = [system.name for system in registry.systems().values() if system.host in roles]
    workers += [name for name in registry.broken() if name not in workers]
    return [*([SERVER] if JUDGING_HOST in roles and settings.serving.url is None else []), *workers]


def server_environment(settings: Settings) -> dict[str, str]:
    """Environment of the inference server: the settings, and how many threads its model may use."""
    return {**environment(settings), "OMP_NUM_THREADS": str(settings.placement.threads)}


def require_ports(settings: Settings) -> None:
    """Raise TransientError, naming port, owner and setting, if a port that this run needs is taken."""
    if settings.redis.url is None and settings.redis.port:
        require_free(settings.redis.port, "redis.port")
    if settings.serving.url is None and settings.serving.port:
        require_free(settings.serving.port, "serving.port")
