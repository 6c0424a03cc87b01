"""The server's folder: the lock of the running server, its address, its state across restarts, and its admin token.

A full disk or a kill may damage any of these files; none of them keeps the server from starting.
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
from ratchet.disk import disk_errors, home_errors, keep_private
from ratchet.errors import ServingError, SettingsError, TransientError
from ratchet.file_lock import FileLock
from ratchet.serving.protocol import Live
from ratchet.settings.serving import ServingSettings
from ratchet.settings.stores import read_secret

log = logging.getLogger(__name__)
_HIGHEST_TOKEN = re.compile(rb'"highest_fencing_token"\s*:\s*(\d+)\s*[,}]')
_PRINTABLE = re.compile(rb"[!-~]+")


class ServerHome:
    """A context manager that reserves the folder for one server, by a lock that ends with the process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        """Lock the folder, and create it if it is missing.

        Raises ServingError while another server holds the lock, TransientError or SettingsError if it is not writable.
        """
        keep_private(self.folder)
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
        """The last written state, or an empty one.

        A damaged file is set aside, since a server that failed here would never start again. It starts empty, and the
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
        """Replace the state. Raises TransientError if the disk is full; the previous state remains."""
        atomic_write(self._path, state.model_dump_json(), durable=True)

    def _set_aside(self, content: bytes) -> ServingState:
        """Rename the damaged file, and start with the fencing token if that can still be read from it.

        The token is the first field, so a truncated file usually has it. If it is lost, the server accepts the first
        switch, normally from the current deployer, which finds nothing live. If a deployer with a stale token is first,
        the current one's next switch replaces its choice.
        """
        aside = self._path.with_suffix(".json.damaged")
        with atomic_replace(aside) as draft:
            draft.write_bytes(content)
        found = _HIGHEST_TOKEN.search(content)
        state = ServingState(highest_fencing_token=int(found[1]) if found else 0)
        self.write(state)
        token = (
            f"fencing tokens below {state.highest_fencing_token} are refused, as before"
            if found
            else "the highest fencing token is lost too, so the first switch of any deployer is accepted"
        )
        log.error(
            "%s is damaged and was set aside as %s: nothing is live until the deployer restores it; %s",
            self._path,
            aside.name,
            token,
        )
        return state


def token_path(home: Path) -> Path:
    """The file of the token that the server creates."""
    return home / "admin-token"


def server_token(settings: ServingSettings, home: Path) -> SecretStr:
    """The configured token, or one created once in the server's home, readable by its owner alone.

    The home must be locked. An empty file, as left by a full disk, a kill or a power cut, is replaced; clients read the
    file whenever they connect.
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
    """The configured token, or the one created by the server on this machine.

    Raises TransientError while there is none; the server creates it when it starts.
    """
    token = _configured(settings) or _kept(home)
    if token is None:
        path = token_path(home)
        state = "holds no token; the server creates one" if path.exists() else "no such file; the server creates it"
        raise TransientError(
            f"{path}: {state} when it starts. Start the inference server here, or set serving.admin_token_file."
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
            "the server then creates a token."
        ) from error


def _kept(home: Path) -> SecretStr | None:
    """The token that the server created; None if the file is missing or empty."""
    try:
        with home_errors(home):
            content = token_path(home).read_bytes().strip()
    except FileNotFoundError:
        return None
    return SecretStr(content.decode()) if _PRINTABLE.fullmatch(content) else None
