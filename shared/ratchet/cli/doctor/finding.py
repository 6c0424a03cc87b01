"""What a check of `ratchet doctor` found, and whether an address on the network can be reached."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

State = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """``bad`` stops a run, a ``note`` does not; both say how to fix it."""

    check: str
    state: State
    text: str


TIMEOUT_S = 3.0
PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "postgresql+psycopg": 5432, "postgresql": 5432}


class Endpoint(NamedTuple):
    """A TCP port of a host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, url: str) -> Endpoint | None:
        """None for a URL without a host, such as that of a file."""
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
        return cls(parts.hostname, port) if parts.hostname and port else None


def connection_problem(endpoint: Endpoint, timeout_s: float = TIMEOUT_S) -> str | None:
    """Why the port cannot be connected to, with a remedy; None if it can."""
    try:
        with socket.create_connection(endpoint, timeout_s):
            return None
    except ConnectionRefusedError:
        return f"nothing listens at {endpoint}: is that machine's stack up, and the port published on that address?"
    except socket.gaierror:
        return f"the name {endpoint.host} cannot be resolved here: give the address, or fix the name service"
    except TimeoutError:
        return (
            f"{endpoint} does not answer: the address is wrong, the machine is off, or a firewall drops the packets; "
            f"allow this machine to reach tcp {endpoint.port} there"
        )
    except OSError as error:
        return f"{endpoint} cannot be reached ({error.strerror or error}): is there a route to that network?"


def connection_problems(endpoints: Iterable[Endpoint]) -> dict[Endpoint, str]:
    """The endpoints that cannot be connected to, each with the reason. They are tried in parallel."""
    distinct = list(dict.fromkeys(endpoints))
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = zip(distinct, pool.map(connection_problem, distinct), strict=True)
        return {endpoint: problem for endpoint, problem in found if problem is not None}
