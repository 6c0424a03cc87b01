"""lm-evaluation-harness's side of the comparison; imported only if it is installed. See run.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
from datasets import Dataset, DatasetDict
from lm_eval.api.instance import Instance
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from ratchet.evaluation.answer_suites import read_suite
from ratchet.inference.chat_template import chat_template
from ratchet.tasks.graders import gold
from transformers import AutoTokenizer

from benchmarks.evaluation.contenders import NEW_TOKENS, TASK, Answers, ForwardClock, Run, fresh

LAST_PART = r"(?:^|=)\s*([0-9a-z]+)\s*$"


class Harness:
    def __init__(self, model: Path, suite: Path, batch_size: int, scratch: Path):
        self._lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=batch_size, max_length=1024)
        self.clock = ForwardClock(self._lm.model)
        self._scratch = scratch
        items = list(read_suite(suite).values())
        tokenizer = AutoTokenizer.from_pretrained(model)
        self._prompts = [chat_template(tokenizer).prompt_text(item.prompt) for item in items]
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
