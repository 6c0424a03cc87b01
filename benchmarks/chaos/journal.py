"""The journal of a chaos run: one JSON line a round, so that a later call goes on where this one ended.

Its first line names the seed. A line that a kill has cut off is dropped.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "rounds.jsonl"


@dataclass(frozen=True)
class Round:
    """One round. ``broken`` are the broken invariants with their evidence; ``seconds`` includes the checks."""

    number: int
    segment: str
    fault: str
    did: str
    recovered_s: float
    seconds: float
    verdicts: int
    checkpoints: int
    broken: list[str] = field(default_factory=list)

    def line(self, rounds: int) -> str:
        ending = "  BROKEN: " + "; ".join(self.broken) if self.broken else ""
        made = f"{self.verdicts} verdicts, {self.checkpoints} checkpoints"
        return (
            f"{self.number:>5}/{rounds}  {self.segment:<10} {self.fault:<34} back in {self.recovered_s:5.1f} s, "
            f"round {self.seconds:5.1f} s, {made}  ({self.did}){ending}"
        )


class Journal:
    """The rounds in ``folder`` so far. A journal keeps its seed: another one cannot be given to it."""

    def __init__(self, folder: Path, seed: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / FILE
        lines = _complete_lines(self._file)
        self.seed = int(lines[0]["seed"]) if lines else seed
        self.rounds = [Round(**line) for line in lines[1:]]
        if not lines:
            self._append({"seed": seed})

    def add(self, found: Round) -> None:
        self.rounds.append(found)
        self._append(asdict(found))

    def broken(self) -> list[Round]:
        return [each for each in self.rounds if each.broken]

    def table(self) -> str:
        """The rounds by fault, as Markdown."""
        by_fault: dict[tuple[str, str], list[Round]] = defaultdict(list)
        for each in self.rounds:
            by_fault[each.segment, each.fault].append(each)
        rows = [
            f"| {fault} | {segment} | {len(found)} | {_quantile(found, 0.5):.1f} | {_quantile(found, 1.0):.1f} | "
            f"{sum(bool(each.broken) for each in found)} |"
            for (segment, fault), found in sorted(by_fault.items(), key=lambda item: item[0])
        ]
        header = ["| fault | stack | rounds | back in, median s | longest s | broken |", "|---|---|---|---|---|---|"]
        return "\n".join([*header, *rows])

    def _append(self, value: dict[str, Any]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _quantile(rounds: list[Round], share: float) -> float:
    ordered = sorted(each.recovered_s for each in rounds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _complete_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of the file; one that was cut off by a kill is removed from it."""
    if not file.exists():
        return []
    text = file.read_text()
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        file.write_text(complete)
    return [json.loads(line) for line in complete.splitlines()]
