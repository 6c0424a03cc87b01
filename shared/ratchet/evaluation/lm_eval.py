"""Read the per-sample file that lm-evaluation-harness writes with ``--log_samples``, as a suite and as a record.

One line a document and filter: ``arguments`` has prompt and generation settings, ``target`` the expected text,
``resps`` and ``filtered_resps`` the answer before and after the filter, ``metrics`` the names of the numbers beside
them. Only tasks that generate text (``generate_until``) can be read: choices that are scored and never said are no
answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.data.example import Example, Message
from ratchet.data.jsonl import bounded_lines, json_object, require_unicode
from ratchet.errors import DataError, EmptyEvaluation
from ratchet.evaluation.record import Evaluation, ItemRecord, RecordKey
from ratchet.evaluation.suite import Suite
from ratchet.files import open_regular, printable
from ratchet.tasks.graders import item_key

ENGINE = "lm-evaluation-harness"
UNKNOWN = "unknown"
LINE_LIMIT_BYTES = 64_000_000
"""A sample holds its whole prompt and all the answers to it."""
RIGHT = 0.5
"""From so much of its metric on, an answer is right; metrics of single answers are 0 or 1."""


@dataclass(frozen=True)
class Reading:
    """How a file is read: the one filter of several (None: the file's first), the item's family, its grader and gold.

    ``gold_after`` cuts the target behind the last of these marks, as ``####``.
    """

    family: str
    filter: str | None = None
    grader: str | None = None
    gold_after: str = ""


@dataclass(frozen=True)
class Sample:
    """An item, the harness's answer to it, and its grade by the harness's first metric."""

    item: Example
    answer: str
    extracted: str
    correct: bool
    metric: str
    filter: str
    decoding: str


def read_samples(path: Path, reading: Reading) -> list[Sample]:
    """The samples of one filter. Raises DataError naming the line, and EmptyEvaluation where there is none."""
    samples: dict[str, Sample] = {}
    wanted = reading.filter
    for number, row in _rows(path):
        name = str(row.get("filter", wanted or "none"))
        wanted = wanted or name
        if name != wanted:
            continue
        try:
            sample = _sample(row, name, reading)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"{printable(path)}:{number}: no sample of a generating task ({type(error).__name__}: {error}); write "
                "the file with `lm_eval --log_samples`, for a task of output_type generate_until."
            ) from error
        samples.setdefault(item_key(sample.item), sample)
    if not samples:
        raise EmptyEvaluation(f"{printable(path)} has no sample" + (f" of filter {wanted!r}." if wanted else "."))
    return list(samples.values())


def as_suite(samples: list[Sample], version: int) -> Suite:
    """The samples' items, to be asked of any checkpoint."""
    return Suite.of("imported", (sample.item for sample in samples), version)


def as_record(samples: list[Sample], suite: Suite, checkpoint_id: str, weights: str) -> Evaluation:
    """The harness's answers as the record of a checkpoint. It has no log-probabilities, and compares with its like."""
    by_key = {item_key(sample.item): sample for sample in samples}
    first = samples[0]
    key = RecordKey(
        weights=weights,
        suite=suite.id,
        grader=f"{ENGINE}:{first.metric}/{first.filter}",
        decoding=first.decoding,
        dtype=UNKNOWN,
        engine=ENGINE,
        gpu_class=UNKNOWN,
    )
    items = tuple(_record(item, by_key[str(item.metadata["key"])]) for item in suite.items)
    return Evaluation(checkpoint_id=checkpoint_id, key=key, items=items)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_regular(path) as file:
        for number, line, is_whole in bounded_lines(file, LINE_LIMIT_BYTES):
            if not line.strip():
                continue
            if not is_whole:
                raise DataError(f"{printable(path)}:{number}: longer than {LINE_LIMIT_BYTES:,} bytes.")
            try:
                row = json_object(line, float)
                require_unicode(line, row)
            except DataError as error:
                raise DataError(f"{printable(path)}:{number}: {error}") from error
            yield number, row


def _sample(row: dict[str, Any], name: str, reading: Reading) -> Sample:
    prompt, settings = _arguments(row["arguments"])
    metric = str(row["metrics"][0])
    gold = str(row["target"])
    if reading.gold_after:
        gold = gold.rpartition(reading.gold_after)[2].strip()
    metadata = {"family": reading.family, "level": 1, "gold": gold, "source": ENGINE}
    if reading.grader:
        metadata["grader"] = reading.grader
    return Sample(
        item=Example(messages=_turns(prompt), metadata=metadata),
        answer=_first(row["resps"]),
        extracted=_first(row["filtered_resps"]),
        correct=float(row[metric]) >= RIGHT,
        metric=metric,
        filter=name,
        decoding=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12],
    )


def _arguments(arguments: Any) -> tuple[str, dict[str, Any]]:
    """Prompt and generation settings of the only request: ``{"gen_args_0": {"arg_0": …}}``, or lists of old."""
    requests = list(arguments.values()) if isinstance(arguments, dict) else list(arguments)
    if len(requests) != 1:
        raise ValueError(f"{len(requests)} requests for one document")
    parts = list(requests[0].values()) if isinstance(requests[0], dict) else list(requests[0])
    prompt, settings = parts
    if not isinstance(prompt, str) or not isinstance(settings, dict):
        raise TypeError("the arguments are no prompt with generation settings")
    return prompt, settings


def _turns(prompt: str) -> tuple[Message, ...]:
    """The prompt as one user turn; one that is a JSON list of turns, as chat engines get it, as those turns."""
    if prompt.startswith("["):
        try:
            return tuple(Message.model_validate(turn) for turn in json.loads(prompt))
        except ValueError:
            pass
    return (Message(role="user", content=prompt),)


def _first(nested: Any) -> str:
    while isinstance(nested, list):
        nested = nested[0]
    return str(nested)


def _record(item: Example, sample: Sample) -> ItemRecord:
    return ItemRecord(
        item_id=item.id,
        key=str(item.metadata["key"]),
        family=str(item.family),
        level=item.level,
        answer=sample.answer,
        extracted=sample.extracted,
        extraction="ok",
        correct=sample.correct,
        token_logprobs=(),
        finish_reason="stop",
        latency_s=0.0,
    )
