"""Finding out that a port is taken before anything is started, and saying which setting moves it."""

from __future__ import annotations

import socket

from ratchet.errors import Refused


def require_free(host: str, port: int, setting: str) -> None:
    """Raise Refused if nobody could listen there now. Port 0 is always free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            variable = "RATCHET_" + setting.replace(".", "__").upper()
            raise Refused(
                f"port {port} on {host} cannot be used ({error.strerror}): set another one as {setting} in "
                f"ratchet.toml, or {variable}={port + 1}."
            ) from error
