"""Evaluation speed of testing beside lm-evaluation-harness's HF backend: same model, same items, one run.

    python benchmarks/evaluation/run.py            # writes RESULTS.md and results.json
    python benchmarks/evaluation/run.py --items 300 --dry --model FOLDER

Needs `lm-eval` beside Ratchet's packages (no part of Ratchet: install it into an environment of its own) and `shared`,
`services/trainer` and `services/evaluator` on the path. The tiny model first learns sums of levels 1 to 3 until it
mostly answers right, so that answers end as a trained model's do. Then both sides answer the same chats greedily, in
this process, on one thread, with the model loaded before the clock starts. Each is tried at several batch sizes, turn
about, and its best one counts. Two things are timed:

- whole: all that a user gets. Here a testing session: the suite is read, every item answered with the log-probability
  of every token, graded, and written as a record. There `simple_evaluate` with a task of the same items (exact match of
  the number that ends the answer, samples logged, no bootstrap; the list of its built-in tasks is read beforehand),
  whose results and samples its EvaluationTracker then writes. The loss of the right answers is asked of neither.
- generation: `LocalGenerator.generate`, which renders the chats and keeps log-probabilities, and `generate_until`
  alone, which gets rendered prompts and keeps no log-probabilities.

The clock is this process's CPU time, which is the wall time of an idle machine; what the harness starts in other
processes (a look at the environment) does not count against it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lm_eval
import torch
import transformers
from datasets import Dataset, DatasetDict
from evaluator.suite_file import read_suite
from evaluator.testing_child import TestingSession
from evaluator.testing_spec import SuiteFile, TestingSpec
from lm_eval.api.instance import Instance
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from ratchet.data.example import Example
from ratchet.evaluation.record import ItemRecord
from ratchet.inference.chat import render_prompt
from ratchet.inference.generator import Decoding
from ratchet.inference.local import LocalGenerator
from ratchet.settings.inference import InferenceSettings
from ratchet.settings.suites import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import gold, item_key
from ratchet.testing.examples import write_examples
from trainer.config import create_default_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter
from transformers import AutoTokenizer

HERE = Path(__file__).parent
BATCH_SIZES = (64, 128, 256, 512, 1024, 2048)
NEW_TOKENS = SuiteSettings().max_new_tokens
ENDS_IN_NUMBER = r"(?:^|=)\s*([0-9]+)\s*$"
TASK = "chain_sum"
ROWS = 40_000

Answers = list[tuple[str, bool]]
"""The text of every answer, and whether it was graded right."""


@dataclass
class Best:
    """What one side did in one kind of run. Speeds are in items a second."""

    by_batch_size: dict[int, float] = field(default_factory=dict)
    answers: Answers = field(default_factory=list)
    forward: dict[int, float] = field(default_factory=dict)
    """Share of the time that was the model's forward pass, in the best round, by batch size."""

    @property
    def batch_size(self) -> int:
        return max(self.by_batch_size, key=lambda size: self.by_batch_size[size])

    @property
    def speed(self) -> float:
        return self.by_batch_size[self.batch_size]

    @property
    def right(self) -> int:
        return sum(correct for _, correct in self.answers)


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
        self._items = read_suite(suite)

    def generation(self) -> Answers:
        chats = [item.prompt for item in self._items]
        generations = self._generator.generate(chats, Decoding(max_new_tokens=NEW_TOKENS))
        return [(generation.text, False) for generation in generations]

    def whole(self) -> Answers:
        spec = TestingSpec(
            checkpoint=self._model,
            suites=(SuiteFile(name=TASK, version="1", grader="1", path=self._suite),),
            work_folder=fresh(self._scratch / "ours"),
            decoding=Decoding(max_new_tokens=NEW_TOKENS),
            inference=self._inference,
        )
        result = LoadedSession(spec, self._generator).run()
        assert result.broken is None, result.broken
        lines = result.suites[TASK].items.read_text(encoding="utf-8").splitlines()
        records = [ItemRecord.model_validate_json(line) for line in lines]
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
        items = read_suite(suite)
        tokenizer = AutoTokenizer.from_pretrained(model)
        self._prompts = [render_prompt(tokenizer, item.prompt) for item in items]
        docs = [{"question": item.question, "gold": gold(item)} for item in items]
        self._data = DatasetDict({"test": Dataset.from_list(docs)})
        self._tasks = TaskManager()
        self._until = {"until": [tokenizer.eos_token], "max_gen_toks": NEW_TOKENS, "do_sample": False}

    def generation(self) -> Answers:
        requests = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(self._until)), idx=0)
            for prompt in self._prompts
        ]
        return [(str(answer), False) for answer in self._lm.generate_until(requests, disable_tqdm=True)]

    def whole(self) -> Answers:
        samples = self.evaluate(limit=None)
        return [(sample["resps"][0][0], sample["exact_match"] == 1) for sample in samples]

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
        last_number = [{"function": "regex", "regex_pattern": ENDS_IN_NUMBER}, {"function": "take_first"}]
        return {
            "task": TASK,
            "custom_dataset": lambda **_: self._data,
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "question",
            "doc_to_target": "gold",
            "num_fewshot": 0,
            "generation_kwargs": dict(self._until),
            "filter_list": [{"name": "number", "filter": last_number}],
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def trained_model(folder: Path) -> Path:
    """The tiny model after 40,000 sums, with the default hyperparameters."""
    family = registry.get(TASK)
    rows = [to_example(family.generate(1 + n % 3, n), "benchmark") for n in range(ROWS)]
    overrides = {"monitoring.preview_backend": "none"}
    config = create_default_config(write_examples(folder / "rows.jsonl", rows), folder / "run", overrides=overrides)
    result = TrainerEngine(TrainingStatusWriter(folder / "status.json")).run_job(config)
    assert result.success, result.error_message
    return Path(str(result.last_checkpoint_path))


def write_suite(path: Path, count: int) -> Path:
    """Sums of levels 1 to 3, each once: a tenth of level 1, which has few, and the rest by halves."""
    family = registry.get(TASK)
    items: dict[str, Example] = {}
    seed = 1_000_000
    while len(items) < count:
        level = 1 if seed % 10 == 0 else 2 + seed % 2
        item = to_example(family.generate(level, seed), "benchmark")
        items.setdefault(item_key(item), item)
        seed += 1
    return write_examples(path, list(items.values()))


def measure(model: Path, suite: Path, scratch: Path, rounds: int, count: int) -> tuple[dict[str, Best], float]:
    """By side and kind of run; and the harness's seconds for one item, which are about its fixed cost."""
    found = {f"{side} {kind}": Best() for side in ("ours", "harness") for kind in ("whole", "generation")}
    fixed_s = float("inf")
    for batch_size in [size for size in BATCH_SIZES if size < 2 * count]:
        ours, harness = (side(model, suite, batch_size, scratch) for side in (Ours, Harness))
        runs: dict[str, Callable[[], Answers]] = {
            "ours whole": ours.whole,
            "harness whole": harness.whole,
            "ours generation": ours.generation,
            "harness generation": harness.generation,
        }
        for name, run in runs.items():
            found[name].answers = run()
        for _ in range(rounds):
            for name, run in runs.items():
                clock, best = (ours if name.startswith("ours") else harness).clock, found[name]
                clock.total_s = 0.0
                took_s, best.answers = timed(run)
                if count / took_s > best.by_batch_size.get(batch_size, 0.0):
                    best.by_batch_size[batch_size] = count / took_s
                    best.forward[batch_size] = clock.total_s / took_s
        fixed_s = min(fixed_s, timed(partial(harness.evaluate, limit=1))[0])
    return found, fixed_s


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what the run returned."""
    begun_at = time.process_time()
    answers = run()
    return time.process_time() - begun_at, answers


def row(what: str, ours: Best, harness: Best) -> str:
    sides = " | ".join(f"{best.speed:,.0f} ({best.batch_size})" for best in (ours, harness))
    return f"| {what} | {sides} | {ours.speed / harness.speed:.2f} |"


def result_text(found: dict[str, Best], fixed_s: float, same: int, options: argparse.Namespace, load: float) -> str:
    ours, harness, count = found["ours whole"], found["harness whole"], options.items
    busy = ": other work ran beside it, so trust the ratios only." if load > 1 else "."
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, lm-eval {lm_eval.__version__}"
    return f"""# Evaluation speed

`python benchmarks/evaluation/run.py --items {count} --rounds {options.rounds}`, {time.strftime("%Y-%m-%d")}, \
{platform.machine()}, one thread, {versions}. {count} sums of levels 1 to 3, at most {NEW_TOKENS} new tokens. Best of \
{options.rounds} warm rounds at the best of the batch sizes {", ".join(map(str, ours.by_batch_size))}; model load \
excluded; CPU time. Load average at the start: {load:.1f} on {os.cpu_count()} cores{busy}

| what | testing, items/s (batch size) | lm-evaluation-harness, items/s (batch size) | ratio |
|---|---|---|---|
{row("whole: answer, grade, record", ours, harness)}
{row("generation alone", found["ours generation"], found["harness generation"])}

Right: {ours.right} of {count} here, {harness.right} there; the same answer in {same} of {count} items in all four runs.
Of the harness's whole run of {count / harness.speed:.2f} s, {fixed_s:.2f} s are what it takes for a single item. \
Testing also keeps the log-probability of every token, which the harness does not when it generates.

The aim is 3; it is {"reached" if ours.speed >= 3 * harness.speed else "not reached"} in the whole run. \
The model's forward pass takes {ours.forward[ours.batch_size]:.0%} of testing's whole run and \
{harness.forward[harness.batch_size]:.0%} of the harness's.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a folder of an earlier run's trained model")
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = options.model or trained_model(scratch)
        load = os.getloadavg()[0]
        suite = write_suite(scratch / "suite.jsonl", options.items)
        found, fixed_s = measure(model, suite, scratch, options.rounds, options.items)
    texts = [[answer.strip() for answer, _ in best.answers] for best in found.values()]
    same = sum(len(set(answers)) == 1 for answers in zip(*texts, strict=True))
    text = result_text(found, fixed_s, same, options, load)
    print(text)
    if not options.dry:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
        figures = {
            name: {
                "items_per_s": best.speed,
                "batch_size": best.batch_size,
                "by_batch_size": best.by_batch_size,
                "forward_share": best.forward,
            }
            for name, best in found.items()
        }
        ratios = {
            kind: found[f"ours {kind}"].speed / found[f"harness {kind}"].speed for kind in ("whole", "generation")
        }
        more = {"ratios": ratios, "same": same, "items": options.items, "right": found["ours whole"].right}
        (HERE / "results.json").write_text(json.dumps(figures | more, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
