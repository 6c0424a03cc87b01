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
    """Held by one server at a time, as a context manager, through a lock that dies with the process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        """Take the folder, made if need be.

        Raises ServingError while another server has it, TransientError or SettingsError for one that cannot be
        written to.
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
    """The address that a server in this folder last announced; None for a file that is absent or cannot be read.

    Every start announces anew, so a damaged file is as good as none.
    """
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
    """``state.json`` in the server's home: replaced whole, and on disk before ``write`` returns."""

    def __init__(self, home: Path):
        self._path = home / "state.json"

    def read(self) -> ServingState:
        """The last state written; the empty one where there is none.

        A file that cannot be read is set aside, since a server that ends here would never start again: it comes up
        empty, and the deployer brings back what is desired.
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
        """Raises TransientError for a full disk; what was written before then stays in force."""
        atomic_write(self._path, state.model_dump_json(), durable=True)

    def _set_aside(self, content: bytes) -> ServingState:
        """Keep the damaged file beside, and begin with the fencing token that can still be read in it.

        The token stands first in the file, so that one cut short has it as a rule. Where it is lost, the server obeys
        whoever speaks first. That is the deployer in charge, whose reconciliation finds nothing live, unless one that
        was taken over wakes up before it; the next switch of the one in charge then overrules that one.
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
    """Where the server keeps a token of its own making."""
    return home / "admin-token"


def server_token(settings: ServingSettings, home: Path) -> SecretStr:
    """The configured token, or one made once and kept in the server's home, readable by its owner alone.

    The home must be held. A file with no text in it, as a full disk, a kill or a power cut may leave it, is made
    anew: clients read it again each time that they connect.
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
        said = "holds no token; the server makes one" if path.exists() else "no such file; the server makes it"
        raise TransientError(
            f"{path}: {said} as it starts. Start the inference server here, or set serving.admin_token."
        )
    return token


def _configured(settings: ServingSettings) -> SecretStr | None:
    if settings.admin_token is not None:
        return settings.admin_token
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
    """The token of the server's own making; None where there is none, or no text in its file."""
    try:
        with home_errors(home):
            content = token_path(home).read_bytes().strip()
    except FileNotFoundError:
        return None
    return SecretStr(content.decode()) if _PRINTABLE.fullmatch(content) else None
