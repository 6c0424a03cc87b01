"""Clients of a server that speaks the OpenAI chat API: each asks again as soon as it is answered.

They write and read plain HTTP/1.1 over one connection each, since a client library of many connections takes more of
the machine than the server that is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

ANSWER_S = 120.0


@dataclass(frozen=True)
class Target:
    """A server by its address, the model's name there, and the CPU seconds that it has taken so far."""

    url: str
    model: str
    cpu_s: Callable[[], float]


@dataclass(frozen=True)
class Load:
    """What clients saw, and what client and server took in CPU time for a request.

    ``fewest`` and ``most`` are answers that a single client got.
    """

    requests_per_s: float
    p50_ms: float
    p95_ms: float
    longest_ms: float
    fewest: int
    most: int
    server_cpu_ms: float
    client_cpu_ms: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass
class Client:
    """One connection. ``latencies`` [s] of its answers."""

    target: Target
    number: int
    tokens: int
    latencies: list[float] = field(default_factory=list)

    async def run(self, ends_at: float, step: int) -> None:
        """Ask until then; a request that is under way is still answered."""
        host = urlsplit(self.target.url)
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        while not self.latencies or time.perf_counter() < ends_at:  # each once, however short the time
            started = time.perf_counter()
            writer.write(_request(self.target.model, self.number, self.tokens))
            await asyncio.wait_for(_answered(reader), ANSWER_S)
            self.latencies.append(time.perf_counter() - started)
            self.number += step
        writer.close()
        await writer.wait_closed()


async def ask(target: Target, clients: int, seconds: float, tokens: int, long: Sequence[int] = ()) -> Load:
    """Load a server with this number of clients, beside uncounted ones that request answers of ``long`` tokens."""
    asking = [Client(target, number, tokens) for number in range(clients)]
    beside = [Client(target, number, length) for number, length in enumerate(long)]
    server, client, started = target.cpu_s(), time.process_time(), time.perf_counter()
    ends_at = started + seconds
    await asyncio.gather(*(one.run(ends_at, clients) for one in (*asking, *beside)))
    took = time.perf_counter() - started
    ranked = sorted(latency for one in asking for latency in one.latencies)
    counts = [len(one.latencies) for one in asking]
    every = len(ranked) + sum(len(one.latencies) for one in beside)
    return Load(
        requests_per_s=len(ranked) / took,
        p50_ms=1000 * ranked[len(ranked) // 2],
        p95_ms=1000 * ranked[int(0.95 * (len(ranked) - 1))],
        longest_ms=1000 * ranked[-1],
        fewest=min(counts),
        most=max(counts),
        server_cpu_ms=1000 * (target.cpu_s() - server) / every,
        client_cpu_ms=1000 * (time.process_time() - client) / every,
    )


def _request(model: str, number: int, tokens: int) -> bytes:
    turns = [{"role": "user", "content": f"{number % 97}+{number % 89}="}]
    body = json.dumps({"model": model, "messages": turns, "max_tokens": tokens, "temperature": 0}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: benchmark\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def _answered(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the server answered {head.splitlines()[0]!r}: {body[:500]!r}")
    found: dict[str, Any] = json.loads(body)
    return found
