"""Examples from a command of the user's: it reads an order as JSON, and writes examples as JSONL.

The order on its standard input is ``{"seed", "part", "count", "levels": [{"family", "level", "weight"}]}``; what it
writes to its standard output may have any of the known shapes. Every row must ask a question of a family and level that
were ordered, and its answer must be right: the family's grader decides, not the script.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.data.metadata import complete_metadata
from ratchet.errors import DataError, RatchetError, SettingsError
from ratchet.settings.section import Section
from ratchet.tasks.graders import grade_example, problem_of

from datagen.generators.generator import Draft, GenerationContext, Order

_LOOK_S = 0.2
_TAIL_BYTES = 2_000


class Script(Section):
    """A command line, run once an order."""

    version: ClassVar[str] = "1"
    command: tuple[str, ...] = Field(min_length=1, description="The program and its arguments; no shell reads them.")
    timeout_s: float = Field(600.0, gt=0, description="Time limit, after which it is killed with its descendants.")

    def drafts(self, order: Order, context: GenerationContext) -> Iterator[Draft]:
        context.folder.mkdir(parents=True, exist_ok=True)
        answer = context.folder / f"part-{order.part}.jsonl"
        self._run(order, answer, context)
        try:
            for number, row in read_examples(answer):
                draft = _checked(row, context)
                if draft is not None:
                    yield draft
                if number % 1_000 == 0:
                    context.progress(f"read {number} rows of the script")
        finally:
            answer.unlink()

    def _run(self, order: Order, answer: Path, context: GenerationContext) -> None:
        errors = answer.with_suffix(".err")
        with open(answer, "wb") as out, open(errors, "wb") as trouble:
            try:
                process = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=out, stderr=trouble, start_new_session=True
                )
            except OSError as error:
                raise SettingsError(f"the script {self.command[0]!r} cannot be run: {error}.") from error
            try:
                _tell(process, order)
                self._await(process, context)
            finally:
                _end(process)
        said = errors.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        errors.unlink()
        if process.returncode:
            raise DataError(f"the script {self.command[0]!r} ended with code {process.returncode}: {said}")

    def _await(self, process: subprocess.Popen[bytes], context: GenerationContext) -> None:
        deadline = time.monotonic() + self.timeout_s
        while process.poll() is None:
            context.progress("the script is running")
            if time.monotonic() > deadline:
                raise DataError(f"the script {self.command[0]!r} took longer than {self.timeout_s:g} s.")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)


def _tell(process: subprocess.Popen[bytes], order: Order) -> None:
    levels = [{"family": family, "level": level, "weight": weight} for family, level, weight in order.weights]
    asked = {"seed": order.seed, "part": order.part, "count": order.count, "levels": levels}
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it need not read
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the script and its descendants."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _checked(row: Example | DataError, context: GenerationContext) -> Draft | None:
    """The row as a draft, with its key and true level; None, counted, for one that is not fit."""
    refused = context.tally.refused
    if isinstance(row, DataError):
        refused["unreadable"] += 1
        return None
    try:
        example = complete_metadata(row)
        problem = problem_of(example)
        right = problem is not None and grade_example(example, example.answer or "").correct
    except RatchetError:
        refused["unknown_question"] += 1
        return None
    if problem is None or not right:
        refused["unknown_question" if problem is None else "wrong_answer"] += 1
        return None
    facts = {"family": problem.family, "level": problem.level, "key": problem.key, "gold": problem.gold}
    metadata = {**example.metadata, **facts, "source": "script"}
    return Draft(
        (problem.family, problem.level), problem.key, example.model_copy(update={"metadata": metadata}).to_line()
    )
