"""Testing's side of the comparison. See run.py."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ratchet.evaluation.answer_suites import SuiteFile, TestingSession, TestingSpec, read_suite
from ratchet.evaluation.record import ItemRecord
from ratchet.inference.generator import BatchGenerator, Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.settings.judging import SuiteSettings
from ratchet.settings.serving import InferenceSettings

NEW_TOKENS = SuiteSettings().max_new_tokens
TASK = "suite"

Answers = list[tuple[str, bool]]
"""The text of every answer, and whether it was graded right."""

Run = Callable[[], Callable[[], Answers]]
"""Runs, and returns what reads its answers, which is not part of the time."""


class ForwardClock:
    """CPU seconds inside a model's forward pass."""

    def __init__(self, model: torch.nn.Module):
        self.total_s = 0.0
        self._begun_at = 0.0
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._begun_at = time.process_time()

    def _end(self, *_: Any) -> None:
        self.total_s += time.process_time() - self._begun_at


class Ours:
    def __init__(self, model: Path, suite: Path, batch_size: int, scratch: Path):
        self._inference = InferenceSettings(device="cpu", batch_size=batch_size)
        self._generator = LocalGenerator.load(model, self._inference)
        self.clock = ForwardClock(self._generator._loaded.model)
        self._model, self._suite, self._scratch = model, suite, scratch
        self._items = list(read_suite(suite).values())

    def runs(self) -> dict[str, Run]:
        return {"whole": self.whole, "with gold loss": partial(self.whole, score_gold=True), "generation": self.alone}

    def alone(self) -> Callable[[], Answers]:
        chats = [item.prompt for item in self._items]
        generations = self._generator.generate(chats, Decoding(max_new_tokens=NEW_TOKENS))
        return lambda: [(generation.text, False) for generation in generations]

    def whole(self, score_gold: bool = False) -> Callable[[], Answers]:
        spec = TestingSpec(
            checkpoint=self._model,
            suites=(SuiteFile(name=TASK, version="1", grader="1", path=self._suite, score_gold=score_gold),),
            work_folder=fresh(self._scratch / "ours"),
            decoding=Decoding(max_new_tokens=NEW_TOKENS),
            inference=self._inference,
        )
        result = LoadedSession(spec, self._generator).run()
        assert result.broken is None, result.broken
        return lambda: answers_in(result.suites[TASK].items, score_gold)


def answers_in(path: Path, score_gold: bool) -> Answers:
    records = [ItemRecord.model_validate_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert all((record.gold_nll is not None) == score_gold for record in records)
    return [(record.answer, bool(record.correct)) for record in records]


class LoadedSession(TestingSession):
    """A testing session whose checkpoint is loaded already."""

    __test__ = False

    def __init__(self, spec: TestingSpec, generator: LocalGenerator):
        super().__init__(spec, lambda _progress: None)
        self._generator = generator

    def _opened(self) -> AbstractContextManager[BatchGenerator]:
        return nullcontext(self._generator)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
