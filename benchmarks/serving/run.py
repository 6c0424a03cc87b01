"""The embedded server beside `transformers serve`: the same model, the same questions, one run.

    python -m benchmarks.serving.run            # writes RESULTS.md and results.json beside it
    python -m benchmarks.serving.run --seconds 1 --clients 1 16 --dry
    python -m benchmarks.serving.run --transformers FOLDER/bin/transformers

Each server runs in a process of its own on one thread, the clients in this one. Servers take turns, round by round,
until the time is used up (four minutes at the most, once they are up), and the best round of each counts. An answer is
16 tokens of the tiny model, greedy; the model is loaded and warm. `transformers serve` needs `pip install openai`
beside what Ratchet installs, or --transformers names one of another environment; where it does not start, the embedded
server is measured alone, and RESULTS.md says why.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from ratchet.inference.model_folder import weights_digest
from ratchet.inference.tiny import build_tiny_model
from ratchet.serving.client import ServingClient

from benchmarks.serving.load import Load, Target, ask
from benchmarks.serving.servers import NoServer, embedded, transformers_serve

SMOKE = ("--seconds", "0", "--rounds", "1", "--clients", "1", "2", "--unbatched", "--brief", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
EMBEDDED, PEER, BATCHING = "embedded", "transformers serve", "transformers serve, batching"
PEERS: dict[str, tuple[str, ...]] = {PEER: (), BATCHING: ("--continuous-batching",)}
CLIENTS = (1, 16, 64, 256)
PEER_CLIENTS = 64
"""More than these are too slow at the peer to be waited for."""
TOKENS = 16
ROUNDS = 3
SECONDS = 3.0
BUDGET_S = 150.0
"""Since all servers are warm: no round begins that would end after it, and where the first one does, what is left of it
is not measured. The long answers and the switches come behind it.
"""

Found = dict[str, dict[int, Load]]


@dataclass(frozen=True)
class Extent:
    """How much is measured beside the load of short answers: ``beside_long`` clients who want short answers while
    others want ``long`` ones (in tokens), and ``switches`` of the live model. Servers are warmed up for ``warm_s``."""

    warm_s: float = 1.0
    beside_long: int = 16
    long: tuple[int, ...] = (512,) * 4
    switches: int = 20


BRIEF = Extent(warm_s=0.0, beside_long=2, long=(2 * TOKENS,), switches=2)


def measure(
    seconds: float,
    executable: Path,
    most_rounds: int,
    clients: Sequence[int],
    peers: dict[str, tuple[str, ...]],
    extent: Extent,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        models = [build_tiny_model(folder / name, seed=seed) for name, seed in (("blue", 3), ("green", 4))]
        target, client = stack.enter_context(embedded(folder / "home", models[0]))
        targets, absent = {EMBEDDED: target}, dict[str, str]()
        for name, options in peers.items():
            if PEER in absent:
                absent[name] = absent[PEER]
                continue
            try:
                targets[name] = stack.enter_context(transformers_serve(executable, models[0], *options))
            except NoServer as error:
                absent[name] = str(error).strip().splitlines()[-1]
        rounds, best = _rounds(targets, seconds, most_rounds, clients, extent.warm_s)
        return {
            "absent": absent,
            "rounds": rounds,
            "load": {name: {str(n): load.to_json() for n, load in loads.items()} for name, loads in best.items()},
            "beside_long": [
                asyncio.run(ask(target, extent.beside_long, seconds, TOKENS, long)).to_json()
                for long in ((), extent.long)
            ],
            "switching": _switching(client, models, extent.switches),
        }


def _rounds(
    targets: dict[str, Target], seconds: float, most_rounds: int, numbers: Sequence[int], warm_s: float
) -> tuple[int, Found]:
    """How many rounds there was time for, and the best load of each server at each number of clients."""
    best: Found = {name: {} for name in targets}
    for target in targets.values():
        asyncio.run(ask(target, 1, warm_s, TOKENS))
    started = time.monotonic()
    ends_at = started + BUDGET_S
    for done in range(most_rounds):
        now = time.monotonic()
        if done and now + (now - started) / done > ends_at:
            return done, best
        for clients in numbers:
            for name, target in targets.items():
                is_asked = name == EMBEDDED or clients <= PEER_CLIENTS
                if is_asked and time.monotonic() < ends_at:
                    seen = asyncio.run(ask(target, clients, seconds, TOKENS))
                    print(f"{name}, {clients} clients: {seen.requests_per_s:.0f}/s", file=sys.stderr)
                    best[name][clients] = max(best[name].get(clients, seen), seen, key=lambda load: load.requests_per_s)
    return most_rounds, best


def _switching(client: ServingClient, models: list[Path], count: int) -> dict[str, float]:
    """Median milliseconds of a load beside the live model, and of a switch, over HTTP."""
    loads, switches = [], []
    names = ["blue", "green"]
    for turn in range(1, count + 1):
        name, other = names[turn % 2], names[(turn + 1) % 2]
        digest = weights_digest(models[turn % 2])
        loads.append(_timed_ms(partial(client.load, name, str(models[turn % 2]), digest)))
        switches.append(_timed_ms(partial(client.switch, name, turn + 1)))
        client.unload(other)
    return {"load_ms": statistics.median(loads), "switch_ms": statistics.median(switches)}


def _timed_ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def to_markdown(found: dict[str, Any], extent: Extent) -> str:
    """Everything of RESULTS.md below its introduction."""
    lines = [
        "| server | clients | requests/s | p50 ms | p95 ms | longest ms | answers a client | server CPU ms "
        "| client CPU ms | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for clients in sorted({int(number) for loads in found["load"].values() for number in loads}):
        base = found["load"].get(PEER, {}).get(str(clients))
        for name, loads in found["load"].items():
            if row := loads.get(str(clients)):
                ratio = f"{row['requests_per_s'] / base['requests_per_s']:.1f}×" if base else "–"
                lines.append(
                    f"| {name} | {clients} | {row['requests_per_s']:.0f} | {row['p50_ms']:.0f} | {row['p95_ms']:.0f} "
                    f"| {row['longest_ms']:.0f} | {row['fewest']}–{row['most']} | {row['server_cpu_ms']:.2f} "
                    f"| {row['client_cpu_ms']:.2f} | {ratio} |"
                )
    absent = [f"\nNot measured: {name} ({why})" for name, why in found["absent"].items()]
    alone, beside = found["beside_long"]
    times = found["switching"]
    return "\n".join(
        [
            *lines,
            *absent,
            "",
            f"The embedded server's short answers take p50 {alone['p50_ms']:.0f} ms and p95 {alone['p95_ms']:.0f} ms "
            f"with {extent.beside_long} clients, and p50 {beside['p50_ms']:.0f} ms and p95 {beside['p95_ms']:.0f} ms "
            f"beside {len(extent.long)} more who want {extent.long[0]} tokens each, again and again.",
            "",
            f"Beside the live model it loads another in {times['load_ms']:.0f} ms (warm-up included) and switches in "
            f"{times['switch_ms']:.1f} ms (its state is on disk by then): medians of {extent.switches}, over HTTP.",
        ]
    )


INTRODUCTION = """# Serving

`{command}`, {day}, {cores} cores, one-minute load before the run {load:.1f}, best of {rounds} rounds of {seconds:g} s
each, servers in turn, {took:.0f} s in all. The tiny model, answers of {tokens} tokens, greedy, one thread a server.
CPU is the user and system time that a process took for a request; all clients are one process, on the same cores.
`answers a client` are the fewest and the most that one client got. Where the load is above the number of cores, trust
the ratios and the CPU times, not the rates.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="how many at once, in turn")
    parser.add_argument(
        "--unbatched", action="store_true", help="only the peer without batching: the other starts slowly"
    )
    parser.add_argument("--brief", action="store_true", help="few long answers and switches, for a test")
    parser.add_argument("--transformers", type=Path, default=Path(sys.executable).parent / "transformers")
    parser.add_argument("--dry", action="store_true", help="print only")
    asked = parser.parse_args()
    peers = {name: options for name, options in PEERS.items() if not (asked.unbatched and options)}
    extent = BRIEF if asked.brief else Extent()
    load, started = os.getloadavg()[0], time.monotonic()
    found = measure(asked.seconds, asked.transformers, asked.rounds, asked.clients, peers, extent)
    took = time.monotonic() - started
    table = to_markdown(found, extent)
    print(table, f"{took:.0f} s in all", sep="\n\n")
    if asked.dry:
        return
    command = "python -m benchmarks.serving.run" + (f" --seconds {asked.seconds:g}" if asked.seconds != SECONDS else "")
    about = {"command": command, "day": date.today(), "cores": os.cpu_count(), "load": load, "took": took}
    text = INTRODUCTION.format(**about, rounds=found["rounds"], seconds=asked.seconds, tokens=TOKENS)
    (HERE / "RESULTS.md").write_text(f"{text}{table}\n")
    where = {"python": platform.python_version(), "cores": os.cpu_count(), "load": load}
    (HERE / "results.json").write_text(json.dumps({"where": where, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
