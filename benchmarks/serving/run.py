"""The embedded server beside `transformers serve`: the same model, the same questions, one run.

    python benchmarks/serving/run.py            # writes RESULTS.md and results.json beside it
    python benchmarks/serving/run.py --seconds 3 --dry

Both servers run in processes of their own on one thread, the clients in this one. Servers take turns, round by round,
and the best round of each counts. An answer is 16 tokens of the tiny model, greedy; the model is loaded and warm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
from ratchet.inference.digest import weights_digest
from ratchet.inference.tiny import build_tiny_model
from ratchet.serving.client import EmbeddedServerClient
from ratchet.serving.home import announced_url
from ratchet.settings.serving import ServingSettings

HERE = Path(__file__).parent
CLIENTS = (16, 64)
TOKENS = 16
START_S = 900.0
ROUNDS = 3


def question(model: str, number: int) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"{number % 97}+{number % 89}="}]
    return {"model": model, "messages": turns, "max_tokens": TOKENS, "temperature": 0}


async def ask(url: str, model: str, clients: int, seconds: float) -> dict[str, float]:
    """Requests/s and latencies of so many clients, each asking again as soon as it is answered."""
    latencies: list[float] = []
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:

        async def client(first: int) -> None:
            number = first
            while time.perf_counter() < ends_at:
                started = time.perf_counter()
                response = await http.post("/v1/chat/completions", json=question(model, number))
                assert response.status_code == 200, response.text
                latencies.append(time.perf_counter() - started)
                number += clients

        started = time.perf_counter()
        ends_at = started + seconds
        await asyncio.gather(*(client(number) for number in range(clients)))
        took = time.perf_counter() - started
    ranked = sorted(latencies)
    return {
        "requests_per_s": len(latencies) / took,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p95_ms": 1000 * ranked[int(0.95 * (len(ranked) - 1))],
    }


@contextmanager
def process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).status_code < 500:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


@contextmanager
def embedded(home: Path, models: list[Path]) -> Iterator[tuple[str, EmbeddedServerClient]]:
    """The server with the first model live."""
    with process([sys.executable, "-m", "ratchet.serving.server", "--home", str(home), "--port", "0"]):
        deadline = time.monotonic() + START_S
        while announced_url(home) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        url = announced_url(home)
        assert url is not None
        wait_for(f"{url}/health")
        with EmbeddedServerClient.from_settings(ServingSettings(), home) as client:
            client.load("blue", str(models[0]), weights_digest(models[0]))
            client.switch("blue", 1)
            yield url, client


@contextmanager
def transformers_serve(model: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with process([*command, str(model)]):
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/health")
        yield url


def switching(client: EmbeddedServerClient, models: list[Path], times: int = 20) -> dict[str, float]:
    """Median milliseconds of a load beside the live model, and of a switch, over HTTP."""
    loads, switches, token = [], [], 2
    names = ["blue", "green"]
    for turn in range(1, times + 1):
        name, other = names[turn % 2], names[(turn + 1) % 2]
        weights = weights_digest(models[turn % 2])
        started = time.perf_counter()
        client.load(name, str(models[turn % 2]), weights)
        loads.append(time.perf_counter() - started)
        started = time.perf_counter()
        client.switch(name, token)
        switches.append(time.perf_counter() - started)
        client.unload(other)
        token += 1
    return {"load_ms": 1000 * statistics.median(loads), "switch_ms": 1000 * statistics.median(switches)}


def measure(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = [build_tiny_model(folder / name, seed=seed) for name, seed in (("blue", 3), ("green", 4))]
        found: dict[str, Any] = {}
        with embedded(folder / "home", models) as (url, client), transformers_serve(models[0]) as other:
            servers = {"embedded": (url, "ratchet"), "transformers serve": (other, str(models[0]))}
            for name, (address, model) in servers.items():
                asyncio.run(ask(address, model, 1, 1.0))  # warm
                found[name] = {}
            for _ in range(ROUNDS):
                for clients in CLIENTS:
                    for name, (address, model) in servers.items():
                        seen = asyncio.run(ask(address, model, clients, seconds))
                        best = found[name].get(clients)
                        if best is None or seen["requests_per_s"] > best["requests_per_s"]:
                            found[name][clients] = seen
            found["switching"] = switching(client, models)
    return found


def to_markdown(found: dict[str, Any]) -> str:
    lines = ["| server | clients | requests/s | p50 ms | p95 ms | ratio |", "|---|---|---|---|---|---|"]
    for clients in CLIENTS:
        base = found["transformers serve"][clients]["requests_per_s"]
        for name in ("embedded", "transformers serve"):
            row = found[name][clients]
            lines.append(
                f"| {name} | {clients} | {row['requests_per_s']:.0f} | {row['p50_ms']:.0f} | {row['p95_ms']:.0f} "
                f"| {row['requests_per_s'] / base:.1f}× |"
            )
    times = found["switching"]
    return "\n".join(
        [
            *lines,
            "",
            f"Beside the live model the embedded server loads another in {times['load_ms']:.0f} ms (warm-up included) "
            f"and switches in {times['switch_ms']:.1f} ms (its state is on disk by then): medians of 20, over HTTP.",
        ]
    )


INTRODUCTION = """# Serving

`python benchmarks/serving/run.py`, {day}, {cores} cores, one-minute load before the run {load:.1f}, best of {rounds}
rounds of {seconds:g} s each, servers in turn. The tiny model, answers of {tokens} tokens, greedy, one thread a server.
`transformers serve` (which needs `pip install openai` beside what Ratchet installs) answers one request at a time here:
its continuous batching is not used. Where the load is above the number of cores, trust the ratios, not the rates.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--dry", action="store_true", help="print only")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(asked.seconds)
    table = to_markdown(found)
    print(table)
    if asked.dry:
        return
    text = INTRODUCTION.format(
        day=date.today(), cores=os.cpu_count(), load=load, rounds=ROUNDS, seconds=asked.seconds, tokens=TOKENS
    )
    (HERE / "RESULTS.md").write_text(f"{text}{table}\n")
    where = {"python": platform.python_version(), "cores": os.cpu_count(), "load": load}
    (HERE / "results.json").write_text(json.dumps({"where": where, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
