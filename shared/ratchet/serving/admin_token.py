"""Who may drive the server: the bearer token of /admin."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from ratchet.errors import SettingsError, SurroundingsError
from ratchet.settings.serving import ServingSettings


def token_path(home: Path) -> Path:
    """Where the server keeps a token of its own making."""
    return home / "admin-token"


def server_token(settings: ServingSettings, home: Path) -> SecretStr:
    """The configured token, or one made once and kept in the server's home, readable by its owner alone."""
    configured = _configured(settings)
    if configured is not None:
        return configured
    path = token_path(home)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(32))
    return _read(path)


def client_token(settings: ServingSettings, home: Path) -> SecretStr:
    """The configured token, or the one that the server on this machine has made.

    Raises SurroundingsError while that server has not been started yet.
    """
    configured = _configured(settings)
    if configured is None and not token_path(home).exists():
        raise SurroundingsError(
            f"{token_path(home)}: no such file. Start the inference server here, or set serving.admin_token."
        )
    return configured or _read(token_path(home))


def _configured(settings: ServingSettings) -> SecretStr | None:
    if settings.admin_token is not None:
        return settings.admin_token
    return _read(settings.admin_token_file) if settings.admin_token_file else None


def _read(path: Path) -> SecretStr:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file. Set serving.admin_token, or start the server first.") from None
    if not token:
        raise SettingsError(f"{path} is empty; it must hold the bearer token of /admin.")
    return SecretStr(token)
