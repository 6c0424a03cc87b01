"""Who may drive the server: the bearer token of /admin."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from pydantic import SecretStr

from ratchet.disk import home_trouble, write_atomically
from ratchet.errors import SettingsError, TransientError
from ratchet.settings.serving import ServingSettings
from ratchet.settings.stores import read_secret

_PRINTABLE = re.compile(rb"[!-~]+")


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
    write_atomically(token_path(home), token, durable=True, mode=0o600)
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
        with home_trouble(home):
            content = token_path(home).read_bytes().strip()
    except FileNotFoundError:
        return None
    return SecretStr(content.decode()) if _PRINTABLE.fullmatch(content) else None
