"""The data gate before the queue: every row is accepted, or quarantined with a reason; none is dropped in silence.

The checks, cheapest first: schema; the item and its gold by the family's grader, else by the declared one; leaks from
the held-out pools; repeats; length. For an item of a known family, leak and duplicate mean the same item key; near
texts are searched for free text alone. Rows stream through, and memory is bounded whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.data.jsonl import Numbered
from ratchet.data.key_counts import UsageCounts
from ratchet.errors import DataError, TransientError, UnknownPlugin
from ratchet.inference.dress import Dress
from ratchet.tasks import registry
from ratchet.tasks.family import Grade
from ratchet.tasks.graders import gold, grade_example, problem_of, text_key

from miner.gate_report import Accepted, GateReport, Quarantined, Reason, Tally
from miner.near_duplicates import NearDuplicates, Sketch

CHUNK = 500
"""Rows that are read before their earlier uses are asked for, all at once."""

Uses = Callable[[Collection[str]], Mapping[str, int]]
"""How often items of these keys were trained on in earlier batches; a key that is missing was not."""


class GatePolicy(BaseModel):
    """Limits: tokens of a row, and how often an item may be trained on over all batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(ge=1)
    epoch_cap: int = Field(ge=1)


@dataclass(frozen=True)
class _Item:
    """A readable row: as it came, and with family, level and key; and how often the batch may hold its key."""

    row: Example
    example: Example
    key: str
    batch_cap: int
    is_text: bool
    grade: Grade


class _Refusal(Exception):
    """A check failed."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason

    def of(self, line: int, row: Example) -> Quarantined:
        return Quarantined(line=line, reason=self.reason, detail=str(self), example=row)


class DataGate:
    """One batch at the gate: iterate ``examine`` once, then read ``report``.

    ``held_out`` knows the keys of held-out items, ``near`` their free texts; ``count_tokens`` gives the length of an
    example as ``dress`` has it trained on.
    """

    def __init__(
        self,
        policy: GatePolicy,
        held_out: Container[str],
        count_tokens: Callable[[Example], int],
        uses: Uses = lambda _: {},
        near: NearDuplicates | None = None,
        dress: Dress | None = None,
    ):
        self._policy = policy
        self._held_out = held_out
        self._count_tokens = count_tokens
        self._uses = uses
        self._near = near or NearDuplicates()
        self._dress = dress or Dress()
        self._tally = Tally()

    @property
    def report(self) -> GateReport:
        """So far; final once all rows are examined."""
        return self._tally.report

    def examine(self, rows: Iterable[Numbered]) -> Iterator[Accepted | Quarantined]:
        """A verdict for every row, in order."""
        stream = iter(rows)
        with closing(UsageCounts()) as seen:
            while chunk := [(line, self._read(line, row)) for line, row in islice(stream, CHUNK)]:
                before = self._uses({item.key for _, item in chunk if isinstance(item, _Item)})
                for line, item in chunk:
                    verdict = item if isinstance(item, Quarantined) else self._verdict(line, item, before, seen)
                    self._tally.add(verdict)
                    yield verdict

    def _read(self, line: int, row: Example | DataError) -> _Item | Quarantined:
        if isinstance(row, DataError):
            return Quarantined(line=line, reason="unreadable", detail=str(row))
        try:
            return _item(row, self._policy.epoch_cap, self._dress)
        except _Refusal as refusal:
            return refusal.of(line, row)
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001 - foreign code fails on one row: it is put aside, the others go on
            return _Refusal("plugin", f"{type(error).__name__}: {error}").of(line, row)

    def _verdict(self, line: int, item: _Item, before: Mapping[str, int], seen: UsageCounts) -> Accepted | Quarantined:
        try:
            self._require_true(item)
            sketch = self._require_apart(item)
            self._require_unused(item, sketch, before.get(item.key, 0), seen)
            tokens = self._require_short(item)
        except _Refusal as refusal:
            return refusal.of(line, item.row)
        seen.add(item.key)
        if sketch is not None:
            self._near.remember(sketch)
        return Accepted(line=line, example=item.example, tokens=tokens)

    def _require_true(self, item: _Item) -> None:
        if not item.grade.correct:
            raise _Refusal("gold", f"the grader does not accept the row's own answer ({item.grade.error}).")

    def _require_apart(self, item: _Item) -> Sketch | None:
        """The sketch of free text; nothing is compared by text where a family knows the item."""
        if item.key in self._held_out:
            raise _Refusal("leak", f"{item.key} is held out for testing.")
        if not item.is_text:
            return None
        sketch = Sketch.of("\n".join(m.content for m in item.example.prompt), gold(item.example))
        if self._near.is_leak(sketch):
            raise _Refusal("near_leak", "nearly the same text is held out for testing.")
        return sketch

    def _require_unused(self, item: _Item, sketch: Sketch | None, before: int, seen: UsageCounts) -> None:
        here = seen[item.key]
        if here + before >= self._policy.epoch_cap:
            raise _Refusal("epoch_cap", f"{item.key} was trained on {here + before} times.")
        if here >= item.batch_cap:
            raise _Refusal("duplicate", f"{item.key} is in this batch already.")
        if sketch is not None and self._near.is_repeat(sketch):
            raise _Refusal("near_duplicate", "nearly the same text, with the same answer, is in this batch already.")

    def _require_short(self, item: _Item) -> int:
        tokens = self._count_tokens(self._dress.example(item.example))
        if tokens > self._policy.max_tokens:
            raise _Refusal("too_long", f"{tokens} tokens, more than {self._policy.max_tokens}.")
        return tokens


def _item(example: Example, epoch_cap: int, dress: Dress) -> _Item:
    """The row's item with its own answer graded. Raises _Refusal for a row that has none."""
    answer = example.answer
    if not example.question.strip():
        raise _Refusal("schema", "there is no user turn with text.")
    if answer is None or not answer.strip():
        raise _Refusal("schema", "the last turn is not an assistant's answer.")
    try:
        dress.profile.validate(example)
    except DataError as error:
        raise _Refusal("schema", str(error)) from error
    answer = dress.answer(str(dress.example(example).answer))
    try:
        problem = problem_of(example)
        if problem is None:
            item = _keyed(example, text_key(example))
            return _Item(example, item, text_key(example), 1, is_text=True, grade=grade_example(example, answer))
    except (DataError, UnknownPlugin) as error:
        raise _Refusal("unknown_question", str(error)) from error
    if problem.level != example.level:
        raise _Refusal("unknown_question", f"{problem.key} is of level {problem.level}, not {example.level}.")
    family = registry.get(problem.family)
    batch_cap = 1 if family.capacity(problem.level) is None else epoch_cap
    grade = family.grade(problem, answer)
    return _Item(example, _keyed(example, problem.key), problem.key, batch_cap, is_text=False, grade=grade)


def _keyed(example: Example, key: str) -> Example:
    return example.model_copy(update={"metadata": {**example.metadata, "key": key}})
