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
    """``bad`` stops a run; a ``note`` is worth a look; either says how to mend it."""

    check: str
    state: State
    text: str


TIMEOUT_S = 3.0
PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "postgresql+psycopg": 5432, "postgresql": 5432}


class Place(NamedTuple):
    """A port by its host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, url: str) -> Place | None:
        """None for a URL that names no host, as that of a file does."""
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
        return cls(parts.hostname, port) if parts.hostname and port else None


def hindrance(place: Place, timeout_s: float = TIMEOUT_S) -> str | None:
    """Why nothing comes of calling the port, and what to do; None where somebody answers."""
    try:
        with socket.create_connection(place, timeout_s):
            return None
    except ConnectionRefusedError:
        return f"nothing listens at {place}: is that machine's stack up, and the port published on that address?"
    except socket.gaierror:
        return f"the name {place.host} is not known here: give the address, or mend the name service"
    except TimeoutError:
        return (
            f"{place} does not answer: the address is wrong, the machine is off, or a firewall drops it; "
            f"let this machine through to tcp {place.port} there"
        )
    except OSError as error:
        return f"{place} cannot be reached ({error.strerror or error}): is there a way to that network?"


def hindrances(places: Iterable[Place]) -> dict[Place, str]:
    """Those that do not answer, each with the reason; asked side by side."""
    asked = list(dict.fromkeys(places))
    with ThreadPoolExecutor(max_workers=16) as pool:
        return {place: said for place, said in zip(asked, pool.map(hindrance, asked), strict=True) if said is not None}
