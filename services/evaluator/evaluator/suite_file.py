"""Read a suite: a JSONL file of held-out examples, each once."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from ratchet.data.example import Example
from ratchet.errors import DataError, EmptyEvaluation
from ratchet.lines import read_lines


def read_suite(path: Path) -> dict[str, Example]:
    """The examples by id, in order. Raises DataError naming file and line, and EmptyEvaluation where there is none."""
    examples: dict[str, Example] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            example = Example.model_validate_json(line)
        except ValidationError as error:
            raise DataError(f"{path}:{number}: not an example: {error.errors()[0]['msg']}") from error
        item_id = example.id
        if item_id in examples:
            raise DataError(f"{path}:{number}: the same item as an earlier line; a suite holds each once.")
        examples[item_id] = example
    if not examples:
        raise EmptyEvaluation(f"{path} holds no item.")
    return examples
