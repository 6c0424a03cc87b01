"""The server's folder: the lock of the server that runs in it, its address, its state over restarts, its admin token.

Each file may be damaged by a full disk or a kill: none of them keeps the server from starting.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from ratchet.atomic_files import atomic_replace, atomic_write
from ratchet.disk import disk_errors, home_errors
from ratchet.errors import ServingError, SettingsError, TransientError
from ratchet.file_lock import FileLock
from ratchet.serving.protocol import Live
from ratchet.settings.serving import ServingSettings
from ratchet.settings.stores import read_secret

log = logging.getLogger(__name__)
_HIGHEST_TOKEN = re.compile(rb'"highest_fencing_token"\s*:\s*(\d+)\s*[,}]')
_PRINTABLE = re.compile(rb"[!-~]+")


class ServerHome:
    """A context manager that holds the folder for one server at a time, by a lock that ends with the process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        """Lock the folder, and create it if it is missing.

        Raises ServingError while another server holds it, TransientError or SettingsError if it is not writable.
        """
        with home_errors(self.folder):
            self._lock = FileLock.try_acquire(self.folder / "server.lock")
        if self._lock is None:
            raise ServingError(f"another inference server runs in {self.folder}; stop it first.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()

    def announce(self, url: str) -> None:
        """Write ``server.json`` with the address and the process id."""
        atomic_write(self.folder / "server.json", json.dumps({"url": url, "pid": os.getpid()}))


def announced_url(folder: Path) -> str | None:
    """The address that a server in this folder last announced; None if the file is missing or damaged."""
    try:
        return str(json.loads((folder / "server.json").read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class ServingState(BaseModel):
    """``path`` is the folder of the live checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    highest_fencing_token: int = 0
    live: Live | None = None
    path: str | None = None


class StateFile:
    """``state.json`` in the server's home, replaced atomically and synced before ``write`` returns."""

    def __init__(self, home: Path):
        self._path = home / "state.json"

    def read(self) -> ServingState:
        """The last state written, or an empty one.

        A damaged file is set aside: a server that failed here would never start again. It comes up empty, and the
        deployer restores what should be live.
        """
        try:
            with disk_errors(self._path.parent):
                content = self._path.read_bytes()
        except FileNotFoundError:
            return ServingState()
        try:
            return ServingState.model_validate_json(content)
        except ValidationError:
            return self._set_aside(content)

    def write(self, state: ServingState) -> None:
        """Raises TransientError for a full disk; the previous state stays in force."""
        atomic_write(self._path, state.model_dump_json(), durable=True)

    def _set_aside(self, content: bytes) -> ServingState:
        """Keep the damaged file, and start with the fencing token that can still be read in it.

        The token is the first field, so a truncated file usually has it. If it is lost, the server accepts the first
        switch: normally that of the current deployer, which finds nothing live. A deposed deployer that comes first
        is overruled by the current one's next switch.
        """
        aside = self._path.with_suffix(".json.damaged")
        with atomic_replace(aside) as draft:
            draft.write_bytes(content)
        found = _HIGHEST_TOKEN.search(content)
        state = ServingState(highest_fencing_token=int(found[1]) if found else 0)
        self.write(state)
        token = (
            f"no fencing token below {state.highest_fencing_token} is obeyed, as before"
            if found
            else "the highest fencing token is lost with it, so any deployer is obeyed until the first switch"
        )
        log.error(
            "%s is damaged and was set aside as %s: nothing is live until the deployer brings it back; %s",
            self._path,
            aside.name,
            token,
        )
        return state


def token_path(home: Path) -> Path:
    """File of the token that the server makes itself."""
    return home / "admin-token"


def server_token(settings: ServingSettings, home: Path) -> SecretStr:
    """The configured token, or one made once and kept in the server's home, readable by its owner alone.

    The home must be locked. A file without text, as a full disk, a kill or a power cut may leave, is replaced:
    clients read it again whenever they connect.
    """
    configured = _configured(settings)
    if configured is not None:
        return configured
    kept = _kept(home)
    if kept is not None:
        return kept
    token = secrets.token_urlsafe(32)
    atomic_write(token_path(home), token, durable=True, mode=0o600)
    return SecretStr(token)


def client_token(settings: ServingSettings, home: Path) -> SecretStr:
    """The configured token, or the one that the server on this machine has made.

    Raises TransientError while there is none: the server makes one as it starts.
    """
    token = _configured(settings) or _kept(home)
    if token is None:
        path = token_path(home)
        state = "holds no token; the server makes one" if path.exists() else "no such file; the server makes it"
        raise TransientError(
            f"{path}: {state} as it starts. Start the inference server here, or set serving.admin_token_file."
        )
    return token


def _configured(settings: ServingSettings) -> SecretStr | None:
    if settings.admin_token_file is None:
        return None
    try:
        return SecretStr(read_secret(settings.admin_token_file))
    except SettingsError as error:
        raise SettingsError(
            f"serving.admin_token_file: {error} Write the bearer token of /admin into it, or leave the setting out: "
            "the server then makes a token of its own."
        ) from error


def _kept(home: Path) -> SecretStr | None:
    """The token that the server made; None without the file, or if it has no text."""
    try:
        with home_errors(home):
            content = token_path(home).read_bytes().strip()
    except FileNotFoundError:
        return None
    return SecretStr(content.decode()) if _PRINTABLE.fullmatch(content) else None
