"""The data gate before the queue: every row is accepted, or quarantined with a reason.

The checks, cheapest first: schema; the item and its gold by the family's grader, else by the declared one; leaks from
the held-out pools; repeats; the model's chat template, and length. For an item of a known family, leak and duplicate
mean the same item key; near texts are searched for free text alone. Rows stream through, and memory does not grow with
the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.data.jsonl import Numbered
from ratchet.data.near_duplicates import NearDuplicates, Sketch
from ratchet.data.usage_counts import UsageCounts
from ratchet.errors import ChatTemplateError, DataError, TransientError, UnknownPlugin
from ratchet.inference.chat_template import chat_template, to_last_answer
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.tokenizer_files import TokenizerFiles
from ratchet.tasks import registry
from ratchet.tasks.family import Grade
from ratchet.tasks.graders import gold, grade_example, problem_of, text_key

CHUNK = 500
"""Rows that are read before their usage counts are looked up, all at once."""

UsageLookup = Callable[[Collection[str]], Mapping[str, int]]
"""How often items of these keys were trained on in earlier batches; a key that is missing was not."""


class GatePolicy(BaseModel):
    """Limits: tokens of a row, and how often an item may be trained on over all batches.

    ``repeats_text``: the batch is made of rows that have passed the gate, and may hold one several times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(ge=1)
    epoch_cap: int = Field(ge=1)
    repeats_text: bool = False


@dataclass(frozen=True)
class _Item:
    """A row that could be read: as submitted, and with family, level and key;

    ``batch_cap`` limits the key in a batch.
    """

    row: Example
    example: Example
    key: str
    batch_cap: int
    is_text: bool
    grade: Grade


class _Rejection(Exception):
    """A check failed."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason

    def of(self, line: int, row: Example) -> Quarantined:
        return Quarantined(line=line, reason=self.reason, detail=str(self), example=row)


class DataGate:
    """The gate for one batch: iterate ``examine`` once, then read ``report``.

    ``held_out`` contains the keys of held-out items, ``near`` their free texts; ``count_tokens`` gives the length of an
    example as ``prompt_format`` has it trained on. ``stored`` are the rows that the batch's task has already.
    """

    def __init__(
        self,
        policy: GatePolicy,
        held_out: Container[str],
        count_tokens: Callable[[Example], int],
        usage: UsageLookup = lambda _: {},
        near: NearDuplicates | None = None,
        prompt_format: PromptFormat | None = None,
        stored: Iterable[Example] = (),
    ):
        self._policy = policy
        self._held_out = held_out
        self._count_tokens = count_tokens
        self._usage = usage
        self._near = near or NearDuplicates()
        self._prompt_format = prompt_format or PromptFormat()
        self._stored = stored
        self._counts = GateCounts()

    @property
    def report(self) -> GateReport:
        """Counts so far; final once all rows are examined."""
        return self._counts.report

    def examine(self, rows: Iterable[Numbered]) -> Iterator[Accepted | Quarantined]:
        """A verdict for every row, in order."""
        stream = iter(rows)
        with closing(UsageCounts()) as seen:
            for row in self._stored:
                seen.add(text_key(row))
                self._near.remember(self._sketch(row))
            while chunk := [(line, self._read(line, row)) for line, row in islice(stream, CHUNK)]:
                before = self._usage({item.key for _, item in chunk if isinstance(item, _Item)})
                for line, item in chunk:
                    verdict = item if isinstance(item, Quarantined) else self._verdict(line, item, before, seen)
                    self._counts.add(verdict)
                    yield verdict

    def _read(self, line: int, row: Example | DataError) -> _Item | Quarantined:
        if isinstance(row, DataError):
            return Quarantined(line=line, reason="unreadable", detail=str(row))
        try:
            return _item(row, self._policy, self._prompt_format)
        except _Rejection as rejection:
            return rejection.of(line, row)
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001 - a plug-in fails on one row: that row is quarantined, the others go on
            return _Rejection("plugin", f"{type(error).__name__}: {error}").of(line, row)

    def _verdict(self, line: int, item: _Item, before: Mapping[str, int], seen: UsageCounts) -> Accepted | Quarantined:
        try:
            self._require_correct(item)
            sketch = self._require_no_leak(item)
            self._require_unused(item, sketch, before.get(item.key, 0), seen)
            tokens = self._require_short(item)
        except _Rejection as rejection:
            return rejection.of(line, item.row)
        seen.add(item.key)
        if sketch is not None and not self._policy.repeats_text:
            self._near.remember(sketch)
        return Accepted(line=line, example=item.example, tokens=tokens)

    def _require_correct(self, item: _Item) -> None:
        if not item.grade.correct:
            raise _Rejection("gold", f"the grader does not accept the row's own answer ({item.grade.error}).")

    def _require_no_leak(self, item: _Item) -> Sketch | None:
        """The sketch of free text; nothing is compared by text where a family knows the item."""
        if item.key in self._held_out:
            what = "this question" if item.is_text else item.key
            raise _Rejection("leak", f"{what} is held out for testing, so it is not trained on.")
        if not item.is_text:
            return None
        sketch = self._sketch(item.example)
        if self._near.is_leak(sketch):
            raise _Rejection(
                "near_leak", "nearly the same text is held out for testing, so this one is not trained on."
            )
        return sketch

    def _sketch(self, row: Example) -> Sketch:
        return self._near.sketch(row.prompt_text, gold(row))

    def _require_unused(self, item: _Item, sketch: Sketch | None, before: int, seen: UsageCounts) -> None:
        here = seen[item.key]
        if here + before >= self._policy.epoch_cap:
            raise _Rejection("epoch_cap", f"{item.key} was trained on {here + before} times.")
        where = "among the task's rows" if self._stored else "in this batch"
        if here >= item.batch_cap:
            what = "this question" if item.is_text else item.key
            raise _Rejection("duplicate", f"{what} is {where} already.")
        if sketch is not None and not self._policy.repeats_text and self._near.is_repeat(sketch):
            raise _Rejection("near_duplicate", f"nearly the same text, with the same answer, is {where} already.")

    def _require_short(self, item: _Item) -> int:
        try:
            tokens = self._count_tokens(self._prompt_format.apply(item.example))
        except ChatTemplateError as error:
            raise _Rejection("template", str(error)) from error
        if tokens > self._policy.max_tokens:
            raise _Rejection("too_long", f"{tokens} tokens, more than {self._policy.max_tokens}.")
        return tokens


def _item(example: Example, policy: GatePolicy, prompt_format: PromptFormat) -> _Item:
    """The row's item with its own answer graded. Raises _Rejection for a row that has none."""
    answer = example.answer
    if not example.question.strip():
        raise _Rejection("schema", "there is no user turn with text.")
    if not all(turn.content.strip() for turn in example.messages if turn.role == "user"):
        raise _Rejection("schema", "a user turn is empty: it asks nothing.")
    if answer is None or not (answer.strip() or example.messages[-1].tool_calls):
        raise _Rejection("schema", "the last turn is not an assistant's answer.")
    try:
        prompt_format.profile.validate(example)
    except DataError as error:
        raise _Rejection("schema", str(error)) from error
    answer = prompt_format.parse(str(prompt_format.apply(example).answer))
    try:
        problem = problem_of(example)
        if problem is None:
            key, cap = text_key(example), policy.epoch_cap if policy.repeats_text else 1
            return _Item(example, _keyed(example, key), key, cap, is_text=True, grade=_text_grade(example, answer))
    except (DataError, UnknownPlugin) as error:
        raise _Rejection("unknown_question", str(error)) from error
    if problem.level != example.level:
        raise _Rejection("unknown_question", f"{problem.key} is of level {problem.level}, not {example.level}.")
    family = registry.get(problem.family)
    batch_cap = 1 if family.capacity(problem.level) is None else policy.epoch_cap
    grade = family.grade(problem, answer)
    return _Item(example, _keyed(example, problem.key), problem.key, batch_cap, is_text=False, grade=grade)


def _text_grade(example: Example, answer: str) -> Grade:
    """The grade of free text; right where its metric has no grader, since any answer is the reference there."""
    if example.metadata.get("metric", "accuracy") != "accuracy":
        return Grade(correct=True, extracted=answer, error=None)
    return grade_example(example, answer)


def _keyed(example: Example, key: str) -> Example:
    return example.model_copy(update={"metadata": {**example.metadata, "key": key}})


Reason = Literal[
    "unreadable",
    "schema",
    "unknown_question",
    "plugin",
    "gold",
    "leak",
    "near_leak",
    "duplicate",
    "near_duplicate",
    "epoch_cap",
    "template",
    "too_long",
]
"""Why a row is in quarantine.

``unreadable``: not JSON, or of no known shape. ``schema``: no question, no answer, or not what the profile can format.
``unknown_question``: the family does not know the question, or the row states another level, or a family or grader
that does not exist. ``plugin``: the family's or the profile's own code failed on it. ``gold``: the grader does not
accept the row's own answer. ``leak``, ``near_leak``: the item, or nearly its text, is held out. ``duplicate``,
``near_duplicate``: it is in this batch, or among the rows of its task, already. ``epoch_cap``: it has been trained on
as often as allowed. ``template``: the model's chat template cannot render it. ``too_long``: more tokens than allowed.
"""


class Accepted(BaseModel):
    """A row that may be trained on; its metadata carry family, level and item key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    example: Example
    tokens: int


class Quarantined(BaseModel):
    """A row that may not. ``example`` is None where the row could not be read; ``detail`` then names file and line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    reason: Reason
    detail: str
    example: Example | None = None

    def to_line(self) -> str:
        """As one line of the quarantine file."""
        return self.model_dump_json()


class GateReport(BaseModel):
    """Counts of a batch: ``rows = accepted + sum(reasons)``. Levels are named ``family/level``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    accepted: int
    tokens: int
    reasons: dict[str, int] = Field(default_factory=dict)
    levels: dict[str, int] = Field(default_factory=dict)
    exhausted: tuple[str, ...] = ()
    """Levels of which the epoch cap refused more rows than were accepted."""


class GateCounts:
    """Counts verdicts."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._levels: Counter[str] = Counter()
        self._capped: Counter[str] = Counter()
        self._tokens = 0

    def add(self, verdict: Accepted | Quarantined) -> None:
        if isinstance(verdict, Accepted):
            self._levels[_name(verdict.example)] += 1
            self._tokens += verdict.tokens
            return
        self._reasons[verdict.reason] += 1
        if verdict.reason == "epoch_cap" and verdict.example is not None:
            self._capped[_name(verdict.example)] += 1

    @property
    def report(self) -> GateReport:
        accepted = self._levels.total()
        return GateReport(
            rows=accepted + self._reasons.total(),
            accepted=accepted,
            tokens=self._tokens,
            reasons=dict(sorted(self._reasons.items())),
            levels=dict(sorted(self._levels.items())),
            exhausted=tuple(sorted(name for name, n in self._capped.items() if n > self._levels[name])),
        )


def _name(example: Example) -> str:
    return f"{example.family}/{example.level}"


class TokenCounter:
    """Tokens of a row as it is trained on. Raises ChatTemplateError for one that the model's template refuses."""

    def __init__(self, model: Path, template_variables: Mapping[str, Any] | None = None):
        """``model`` is the folder of the base model, ``template_variables`` those of the profile."""
        self._template = chat_template(TokenizerFiles(model, "the base model"), template_variables)

    def __call__(self, example: Example) -> int:
        return len(self._template.training_ids(to_last_answer(example.messages), example.tools).ids)
