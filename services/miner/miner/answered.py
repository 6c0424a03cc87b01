"""What mining knows of one answer, wherever it came from: the probe record, or a question asked in the search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from ratchet.data.example import Example
from ratchet.evaluation.record import ItemRecord
from ratchet.inference.dress import Dress
from ratchet.tasks.error_classes import classify


class Answered(BaseModel):
    """An item with a model's answer. ``error`` is its error class (see ratchet.tasks.error_classes), None where right.

    ``mean_probability`` is exp of the mean token log-probability: the geometric mean of the token probabilities;
    ``least_probability`` belongs to the least certain token. Both are 0 where there is no token. ``gold_nll`` is the
    loss of the right answer in nats a token, None where it was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: Example
    key: str
    answer: str
    error: str | None
    mean_probability: float
    least_probability: float
    gold_nll: float | None = None

    @property
    def cell(self) -> tuple[str, int]:
        """Family (``text`` where there is none) and level."""
        return self.example.family or "text", self.example.level

    @property
    def is_right(self) -> bool:
        return self.error is None

    @classmethod
    def of(
        cls, example: Example, key: str, text: str, logprobs: Sequence[float], dress: Dress, *, finished: bool
    ) -> Answered:
        """Grade a text by the item's own grader. Raises DataError as grade_example does."""
        return cls(
            example=example,
            key=key,
            answer=text,
            error=classify(example, dress.answer(text), text, finished=finished),
            mean_probability=math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0,
            least_probability=math.exp(min(logprobs)) if logprobs else 0.0,
        )

    @classmethod
    def of_record(cls, example: Example, record: ItemRecord, dress: Dress) -> Answered:
        """As testing recorded it; the record's own word on right and wrong stands."""
        finished = record.finish_reason == "stop"
        found = cls.of(example, record.key, record.answer, record.token_logprobs, dress, finished=finished)
        found = found.model_copy(update={"gold_nll": record.gold_nll})
        if record.correct == found.is_right:
            return found
        return found.model_copy(update={"error": None if record.correct else "wrong"})
