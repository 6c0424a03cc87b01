"""Examples of task families, made in worker processes.

An order is cut into chunks whose content depends on the order and their number alone, so it does not matter how many
processes share them. Each process writes its chunks to files, which are read back in order: memory stays flat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ratchet.evaluation.suite import HoldOut
from ratchet.settings.section import Section
from ratchet.tasks import registry
from ratchet.tasks.family import Problem, TaskFamily

from datagen.generators.generator import Cell, Draft, GenerationContext, Order

SOURCE = "generation"
CHUNK = 4_000
REPORT_EVERY = 1_000

MOST_DRAWS = 300
"""Held-out draws in a row after which a level is taken to be held out altogether."""


class Tasks(Section):
    """The families of the library. It has no options."""

    version: ClassVar[str] = "2"

    def drafts(self, order: Order, context: GenerationContext) -> Iterator[Draft]:
        chunks = -(-order.count // CHUNK)
        if chunks == 1 or context.child is None or not isinstance(context.held_out, HoldOut):
            for number in range(chunks):
                yield from chunk(order, number, context.held_out, context.tally.refused.update)
            return
        files = _made_in_children(order, chunks, context)
        try:
            for file in files:
                yield from _read(file)
                file.unlink()
        finally:
            for file in files:
                file.unlink(missing_ok=True)


def chunk(
    order: Order, number: int, held_out: Container[str], count: Callable[[dict[str, int]], None]
) -> Iterator[Draft]:
    """The drafts of one chunk; ``count`` is called with the number of held-out draws."""
    random = Random(f"{order.seed} {order.part} {number}")
    cells: dict[Cell, float] = {(family, level): weight for family, level, weight in order.weights}
    families = {family: registry.get(family) for family, _ in cells}
    for _ in range(min(CHUNK, order.count - number * CHUNK)):
        while cells:
            cell = random.choices(list(cells), list(cells.values()))[0]
            problem, held = _free(families[cell[0]], cell[1], random, held_out)
            if held:
                count({"held_out": held})
            if problem is not None:
                yield Draft(cell, problem.key, to_line(problem))
                break
            del cells[cell]


def write_chunks(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """In a child: make the chunks of ``numbers`` and write each to its file in ``folder``."""
    order, held_out = Order.model_validate(spec["order"]), HoldOut.model_validate(spec["held_out"])
    refused = 0

    def count(found: dict[str, int]) -> None:
        nonlocal refused
        refused += found["held_out"]

    for number in spec["numbers"]:
        with open(_file(Path(spec["folder"]), order, number), "w", encoding="utf-8") as file:
            for place, ((family, level), key, line) in enumerate(chunk(order, number, held_out, count)):
                file.write(f"{json.dumps([family, level, key])}\t{line}\n")
                if place % REPORT_EVERY == 0:
                    progress({"note": f"chunk {number}, {place} examples"})
    return {"held_out": refused}


def to_line(problem: Problem) -> str:
    """As ``to_example(problem, SOURCE).to_line()``, at a third of its time."""
    turns = [{"role": "user", "content": problem.question}, {"role": "assistant", "content": problem.solution}]
    metadata: dict[str, Any] = {
        "family": problem.family,
        "level": problem.level,
        "key": problem.key,
        "gold": problem.gold,
        "source": SOURCE,
    }
    if problem.seed is not None:
        metadata["seed"] = problem.seed
    return json.dumps({"messages": turns, "metadata": metadata}, ensure_ascii=False)


def _free(family: TaskFamily, level: int, random: Random, held_out: Container[str]) -> tuple[Problem | None, int]:
    """A problem that is not held out, and how many draws were; None if there seems to be none."""
    for held in range(MOST_DRAWS):
        problem = family.generate(level, random.getrandbits(48))
        if problem.key not in held_out:
            return problem, held
    return None, MOST_DRAWS


def _made_in_children(order: Order, chunks: int, context: GenerationContext) -> list[Path]:
    """Every worker's share of the chunks, made at once; raises what the first failing child raised."""
    workers = min(context.workers, chunks)
    child, held_out = context.child, context.held_out
    assert child is not None, "asked for with one"
    assert isinstance(held_out, HoldOut), "asked for with one"

    def work(worker: int) -> Mapping[str, Any]:
        spec = {
            "order": order.model_dump(mode="json"),
            "held_out": held_out.model_dump(mode="json"),
            "numbers": list(range(worker, chunks, workers)),
            "folder": str(context.folder),
        }
        return child("datagen.generators.tasks:write_chunks", spec)

    context.folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers, "generation") as pool:
        for result in pool.map(work, range(workers)):
            if result["held_out"]:
                context.tally.refused["held_out"] += result["held_out"]
    return [_file(context.folder, order, number) for number in range(chunks)]


def _file(folder: Path, order: Order, number: int) -> Path:
    return folder / f"part-{order.part}-chunk-{number}.tsv"


def _read(file: Path) -> Iterator[Draft]:
    with open(file, encoding="utf-8", newline="\n") as lines:
        for text in lines:
            head, line = text.rstrip("\n").split("\t", 1)
            family, level, key = json.loads(head)
            yield Draft((family, level), key, line)
