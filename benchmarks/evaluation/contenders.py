"""The two sides: testing, and lm-evaluation-harness. See run.py."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import torch
from datasets import Dataset, DatasetDict
from evaluator.suite_file import read_suite
from evaluator.testing_child import TestingSession
from evaluator.testing_spec import SuiteFile, TestingSpec
from lm_eval.api.instance import Instance
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from ratchet.evaluation.record import ItemRecord
from ratchet.inference.chat import render_prompt
from ratchet.inference.generator import Decoding
from ratchet.inference.local import LocalGenerator
from ratchet.settings.inference import InferenceSettings
from ratchet.settings.suites import SuiteSettings
from ratchet.tasks.graders import gold
from transformers import AutoTokenizer

NEW_TOKENS = SuiteSettings().max_new_tokens
LAST_PART = r"(?:^|=)\s*([0-9a-z]+)\s*$"
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
    records = [ItemRecord.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all((record.gold_nll is not None) == score_gold for record in records)
    return [(record.answer, record.correct) for record in records]


class LoadedSession(TestingSession):
    """A testing session whose checkpoint is loaded already."""

    __test__ = False

    def __init__(self, spec: TestingSpec, generator: LocalGenerator):
        super().__init__(spec, lambda _progress: None)
        self._generator = generator

    def _load(self) -> LocalGenerator:
        return self._generator


class Harness:
    def __init__(self, model: Path, suite: Path, batch_size: int, scratch: Path):
        self._lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=batch_size, max_length=1024)
        self.clock = ForwardClock(self._lm.model)
        self._scratch = scratch
        items = list(read_suite(suite).values())
        tokenizer = AutoTokenizer.from_pretrained(model)
        self._prompts = [render_prompt(tokenizer, item.prompt) for item in items]
        prompts, golds = (
            tokenizer(texts, add_special_tokens=False).input_ids
            for texts in (self._prompts, [f"{item.answer}{tokenizer.eos_token}" for item in items])
        )
        self._scored = [(("", ""), prompt, answer) for prompt, answer in zip(prompts, golds, strict=True)]
        docs = [{"question": item.question, "gold": gold(item)} for item in items]
        self._data = DatasetDict({"test": Dataset.from_list(docs)})
        self._tasks = TaskManager()
        self._until = {"until": [tokenizer.eos_token], "max_gen_toks": NEW_TOKENS, "do_sample": False}

    def runs(self) -> dict[str, Run]:
        return {"whole": self.whole, "with gold loss": self.with_gold_loss, "generation": self.alone}

    def alone(self) -> Callable[[], Answers]:
        requests = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(self._until)), idx=0)
            for prompt in self._prompts
        ]
        answers = self._lm.generate_until(requests, disable_tqdm=True)
        return lambda: [(str(answer), False) for answer in answers]

    def whole(self) -> Callable[[], Answers]:
        samples = self.evaluate(limit=None)
        return lambda: [(sample["resps"][0][0], sample["exact_match"] == 1) for sample in samples]

    def with_gold_loss(self) -> Callable[[], Answers]:
        answers = self.whole()
        self._lm._loglikelihood_tokens(self._scored, disable_tqdm=True)
        return answers

    def evaluate(self, limit: int | None) -> list[dict[str, Any]]:
        tracker = EvaluationTracker(output_path=str(fresh(self._scratch / "harness")))
        results = lm_eval.simple_evaluate(
            model=self._lm,
            tasks=[self._task()],
            task_manager=self._tasks,
            apply_chat_template=True,
            bootstrap_iters=0,
            log_samples=True,
            limit=limit,
            evaluation_tracker=tracker,
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        tracker.save_results_samples(task_name=TASK, samples=samples[TASK])
        return sorted(samples[TASK], key=lambda sample: int(sample["doc_id"]))

    def _task(self) -> dict[str, Any]:
        last_part = [{"function": "regex", "regex_pattern": LAST_PART}, {"function": "take_first"}]
        return {
            "task": TASK,
            "custom_dataset": lambda **_: self._data,
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "question",
            "doc_to_target": "gold",
            "num_fewshot": 0,
            "generation_kwargs": dict(self._until),
            "filter_list": [{"name": "last", "filter": last_part}],
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
