"""Evaluations made of grades, for tests and simulations that judge without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from ratchet.evaluation.record import Evaluation, ItemRecord, RecordKey

Cell = tuple[str, int]


def evaluation(
    checkpoint_id: str,
    grades: Mapping[Cell, Sequence[bool]],
    confidence: Mapping[Cell, Sequence[float]] | None = None,
    suite: str = "suite",
) -> Evaluation:
    """Items of each (family, level), in order, graded so; each answer is one token of the confidence given (or 0.9)."""
    key = RecordKey(
        weights=checkpoint_id,
        suite=suite,
        grader="exact-1",
        decoding="greedy",
        dtype="fp32",
        engine="local",
        gpu_class="cpu",
    )
    items = [
        _item(cell, position, correct, confidence[cell][position] if confidence else 0.9)
        for cell, marks in grades.items()
        for position, correct in enumerate(marks)
    ]
    return Evaluation(checkpoint_id=checkpoint_id, key=key, items=tuple(items))


def _item(cell: Cell, position: int, correct: bool, confidence: float) -> ItemRecord:
    family, level = cell
    name = f"{family}:{level}:{position}"
    return ItemRecord(
        item_id=name,
        key=name,
        family=family,
        level=level,
        answer="1" if correct else "0",
        extracted="1" if correct else "0",
        extraction="ok",
        correct=correct,
        token_logprobs=(log(confidence),),
        finish_reason="stop",
        latency_s=0.0,
    )


def item_record(**fields: Any) -> ItemRecord:
    """A wrong answer to a sum, with these fields changed."""
    plain = {
        "item_id": "1",
        "key": "1",
        "family": "sums",
        "level": 1,
        "answer": "1+1=2",
        "extracted": None,
        "extraction": "ok",
        "correct": False,
        "token_logprobs": (-0.1,),
        "finish_reason": "stop",
        "latency_s": 0.0,
    }
    return ItemRecord.model_validate(plain | fields)
