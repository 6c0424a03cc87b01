"""One evaluation, many readers: what testing stores of every item, and the key that makes two records comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.errors import NotComparable

Extraction = Literal["ok", "missing", "truncated"]


class ItemRecord(BaseModel):
    """How one checkpoint answered one item of one suite.

    ``token_logprobs`` are natural-log probabilities of the tokens that were generated, in order (the end token
    included where it was generated); ``token_ids`` are those tokens, where the engine tells them. ``correct`` is
    the family grader's word. ``extraction`` says whether an answer could be read from the text at all
    (``missing``), or the text ran into the token limit (``truncated``). ``gold_nll`` is the mean negative
    log-probability, in nats a token, of the right answer as it is trained on; None where it was not asked for, or
    there is none that fits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    key: str
    family: str
    level: int
    answer: str
    extracted: str | None
    extraction: Extraction
    correct: bool
    token_logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    latency_s: float
    token_ids: tuple[int, ...] = ()
    gold_nll: float | None = None


class RecordKey(BaseModel):
    """What a record depends on. Two records are compared only when all but ``weights`` are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str
    suite: str
    grader: str
    decoding: str
    dtype: str
    engine: str
    gpu_class: str

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:32]

    def conditions(self) -> dict[str, str]:
        """Everything but the weights."""
        return self.model_dump(exclude={"weights"})

    def require_comparable(self, other: RecordKey) -> None:
        """Raise NotComparable, naming each differing field, unless only the weights differ."""
        mine, theirs = self.conditions(), other.conditions()
        differing = [f"{k}: {mine[k]} != {theirs[k]}" for k in mine if mine[k] != theirs[k]]
        if differing:
            raise NotComparable("records differ in " + "; ".join(differing) + ". Evaluate both again alike.")


class Evaluation(BaseModel):
    """A key with the records of all items, in the suite's order."""

    model_config = ConfigDict(frozen=True)

    checkpoint_id: str
    key: RecordKey
    items: tuple[ItemRecord, ...]


def paired(a: Evaluation, b: Evaluation) -> list[tuple[ItemRecord, ItemRecord]]:
    """Items of both evaluations, matched by item id, in the order of ``a``.

    Raises NotComparable when conditions differ or when either has items that the other lacks.
    """
    a.key.require_comparable(b.key)
    other = {item.item_id: item for item in b.items}
    if other.keys() != {item.item_id for item in a.items}:
        raise NotComparable(f"{a.checkpoint_id} and {b.checkpoint_id} answered different items of one suite.")
    return [(item, other[item.item_id]) for item in a.items]


def to_lines(items: Iterable[ItemRecord]) -> str:
    """Records as JSONL text."""
    return "".join(item.model_dump_json() + "\n" for item in items)


def from_lines(lines: Iterable[str]) -> tuple[ItemRecord, ...]:
    """The inverse of to_lines."""
    return tuple(ItemRecord.model_validate_json(line) for line in lines if line.strip())
