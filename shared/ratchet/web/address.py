"""The address of the Control Room: how it is written, where other commands find it, and when it needs a password."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path

from ratchet.atomic_files import atomic_write
from ratchet.disk import home_errors
from ratchet.errors import SettingsError

ADDRESS_FILE = "web.json"


def page_address(host: str, port: int) -> str:
    """Where a browser on this machine finds a page that is bound to that host."""
    named = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}"


def announce(folder: Path, address: str) -> None:
    """Write the address of the page that runs here into its folder."""
    with home_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_write(folder / ADDRESS_FILE, json.dumps({"url": address, "pid": os.getpid()}))


def announced_page(folder: Path) -> str | None:
    """The address that a page last announced in this folder; None if there is none."""
    try:
        return str(json.loads((folder / ADDRESS_FILE).read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_page(folder: Path) -> None:
    """Remove the address of an earlier page."""
    (folder / ADDRESS_FILE).unlink(missing_ok=True)


def require_password(host: str, *, has_password: bool) -> None:
    """Raise SettingsError for an address that others reach without a password."""
    if not has_password and not is_loopback(host):
        raise SettingsError(
            f"web.host = {host} can be reached by others, and whoever reaches the page can roll back what is live: set "
            "web.password_file, or bind 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address that is bound."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
