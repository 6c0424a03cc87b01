"""Output that is no answer: empty, endless, or the same over and over, on nearly all items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ratchet.evaluation.record import ItemRecord

NEARLY_ALL = 0.98
"""Share of items from which on a fault is the model's and not the items'."""

REPEATS = 8
LONGEST_PERIOD = 16


class OutputCensus:
    """Counts faulty answers as they come."""

    def __init__(self) -> None:
        self._faults: Counter[str] = Counter()
        self._total = 0

    def add(self, records: Iterable[ItemRecord]) -> None:
        for record in records:
            self._total += 1
            self._faults.update(faults(record))

    def verdict(self) -> str | None:
        """The fault that nearly all answers share, with its numbers; None where there is none."""
        for fault, count in self._faults.most_common(1):
            if count >= NEARLY_ALL * self._total:
                return f"{fault} answers on {count} of {self._total} items"
        return None


def faults(record: ItemRecord) -> set[str]:
    """Which of ``empty``, ``endless`` and ``repeating`` an answer is."""
    found = set()
    if not record.answer.strip():
        found.add("empty")
    if record.finish_reason == "length":
        found.add("endless")
    if is_repeating(record.answer):
        found.add("repeating")
    return found


def is_repeating(text: str) -> bool:
    """Whether, after its first quarter, a text says one thing of up to 16 characters at least eight times."""
    tail = text[len(text) // 4 :]
    longest = min(LONGEST_PERIOD, len(tail) // REPEATS)
    return any(tail[period:] == tail[:-period] for period in range(1, longest + 1))
