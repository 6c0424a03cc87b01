"""Ports: which of the loopback interface are free, which process uses the others, and binding one."""

from __future__ import annotations

import errno
import socket

import psutil

from ratchet.errors import RatchetError, TransientError

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port on which no process listens now. Another process may take it before it is used."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def require_free(port: int, setting: str) -> None:
    """Raise TransientError, naming the port, its process and the ``setting`` to change, if the port is in use."""
    if not is_free(port):
        raise TransientError(
            f"Port {port} is in use by {port_owner(port)}. Stop that, or set {setting} to another port, "
            "or to 0 for a free one."
        )


def port_owner(port: int) -> str:
    """The process that listens on ``port``, if this user may see it."""
    try:
        listeners = [
            connection.pid
            for connection in psutil.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        ]
        pid = next((pid for pid in listeners if pid is not None), None)
        return "another process" if pid is None else f"{psutil.Process(pid).name()} (pid {pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return "another process"


def listen(host: str, port: int, setting: str, error_type: type[RatchetError] = TransientError) -> socket.socket:
    """A socket bound to that port, 0 for a free one. Raises ``error_type``, naming the ``setting`` to change."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, not left at 0: only then does asyncio disable Nagle's algorithm on accepted connections.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror}"
        raise error_type(
            f"port {port} of {host} {why}. Set {setting} or --port to another; 0 takes a free one."
        ) from error
    return listener
