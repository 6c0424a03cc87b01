"""Tokens until the third level is mastered, by curriculum strategy: the tiny model, trained directly by the engine.

    nice -n 10 python -m benchmarks.curriculum.run                  # writes RESULTS.md and results.json
    python -m benchmarks.curriculum.run --seeds 0 1 --strategies adaptive mixed --dry

One run is one strategy and one seed: cycles of ``--rows`` examples of its mix, each followed by a probe (which it
learns from) and by a test on other held-out items, until level 3 of the test reaches 90 % or ``--most-tokens`` are
used up. A seed gives every strategy the same untrained model. Tokens are counted, not seconds, so the load of the
machine does not matter. Finished runs are kept in ``--keep`` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from datagen.batch_generation import generate_batch
from datagen.mix import bend
from datagen.strategies import RECENT, LearnerState, Mastery, get_strategy, update_mastery
from ratchet.evaluation.build_suites import build_pools
from ratchet.evaluation.record import LevelRates, Rate
from ratchet.evaluation.suite import HoldOut, Pool, Suite, hold_out
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.tiny import build_tiny_model
from ratchet.settings.data import CurriculumSettings
from ratchet.tasks import registry as tasks
from ratchet.tasks.graders import grade_example
from trainer.config import create_default_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter

from benchmarks.curriculum.report import as_markdown

SMOKE = ("--seeds", "0", "--strategies", "mixed", "--levels", "3", "--rows", "8", "--most-tokens", "1", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
ARMS = ("adaptive", "mixed", "progressive")
TARGET_LEVEL, TARGET = 3, 0.9
PROBE_ITEMS, TEST_ITEMS = 60, 100
"""Items of each level."""
MAX_ANSWER_LENGTH = 64


@dataclass(frozen=True)
class Task:
    """What is trained and tested, the same for every run."""

    family: str
    levels: tuple[int, ...]
    rows: int
    most_tokens: int

    @property
    def cells(self) -> list[tuple[str, int]]:
        return [(self.family, level) for level in self.levels]

    def held_out(self) -> HoldOut:
        return hold_out({self.family: tasks.get(self.family)}, self.cells, seed=1)

    def suites(self) -> tuple[Suite, Suite]:
        """Probe and test: no item is in both, and neither is ever trained on."""
        sizes: dict[Pool, int] = {
            "probe": PROBE_ITEMS * len(self.levels),
            "eval": TEST_ITEMS * len(self.levels),
            "confirm": 3,
        }
        pools = build_pools({self.family: tasks.get(self.family)}, self.cells, sizes, self.held_out())
        return pools["probe"], pools["eval"]


@dataclass
class Learner:
    """A model that is trained in cycles on an arm's mix."""

    task: Task
    arm: str
    seed: int
    folder: Path
    model: Path = field(init=False)
    state: Path | None = None
    tokens: int = 0
    mastery: Mastery = field(default_factory=Mastery)
    history: tuple[LevelRates, ...] = ()
    settings: CurriculumSettings = field(default_factory=CurriculumSettings)

    def __post_init__(self) -> None:
        self.model = build_tiny_model(self.folder / "model", seed=self.seed)

    def train(self, cycle: int, held: HoldOut) -> None:
        """Train one batch of the arm's mix, resumed from the exact state of the last one."""
        learner = LearnerState({self.task.family: self.task.levels}, self.mastery, self.history, self.settings)
        mix = bend(self.arm, get_strategy(self.arm).draft(learner), {}, ())
        shares = [(share.family, share.level, share.weight) for share in mix.shares]
        rows = self.folder / f"rows-{cycle}.jsonl"
        batch = generate_batch(shares, self.task.rows, self.seed * 1_000 + cycle, held, epoch_cap=10_000)
        rows.write_text("".join(f"{example.to_line()}\n" for example in batch), encoding="utf-8")
        overrides: dict[str, Any] = {"model.path": str(self.model)}
        if self.state is not None:
            overrides["output.resume_from"] = self.state
        config = create_default_config(rows, self.folder / f"cycle-{cycle}", overrides=overrides)
        result = TrainerEngine(TrainingStatusWriter(self.folder / "status.json")).run_job(config)
        if not result.success:
            raise SystemExit(f"{self.arm}, seed {self.seed}, cycle {cycle}: {result.error_message}")
        self.model, self.state = Path(str(result.last_checkpoint_path)), Path(str(result.state_path))
        self.tokens += int(result.summary["tokens"])

    def look(self, probe: Suite, test: Suite) -> LevelRates:
        """Learn from the probe, and return the rates on the test."""
        generator = LocalGenerator.load(self.model)
        measured = graded(generator, probe)
        self.mastery = update_mastery(self.mastery, measured, self.settings.mastery)
        self.history = (*self.history, measured)[-RECENT:]
        return graded(generator, test)


def graded(generator: LocalGenerator, suite: Suite) -> LevelRates:
    answers = generator.generate([item.prompt for item in suite.items], Decoding(max_new_tokens=MAX_ANSWER_LENGTH))
    counts: dict[tuple[str, int], list[int]] = {}
    for item, answer in zip(suite.items, answers, strict=True):
        cell = counts.setdefault((str(item.family), item.level), [0, 0])
        cell[0] += grade_example(item, answer.text).correct
        cell[1] += 1
    return {cell: Rate(correct=correct, n=n) for cell, (correct, n) in counts.items()}


def run(task: Task, arm: str, seed: int) -> dict[str, Any]:
    """One arm and seed. ``tokens`` is None where the target was not reached."""
    probe, test = task.suites()
    held = task.held_out()
    curve: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(task, arm, seed, Path(folder))
        while learner.tokens < task.most_tokens:
            learner.train(len(curve), held)
            rates = {level: rate.value for (_, level), rate in sorted(learner.look(probe, test).items())}
            curve.append({"tokens": learner.tokens, "levels": rates})
            print(f"{arm} {seed}: {learner.tokens:,} tokens, {rates}", flush=True)
            if rates[TARGET_LEVEL] >= TARGET:
                return {"arm": arm, "seed": seed, "tokens": learner.tokens, "curve": curve}
    return {"arm": arm, "seed": seed, "tokens": None, "curve": curve}


def kept(file: Path, task: Task, arm: str, seed: int) -> dict[str, Any]:
    """The kept run, or a new one, which is then kept."""
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    made = run(task, arm, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps(made), encoding="utf-8")
    file.with_suffix(".part").rename(file)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategies", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--family", default="chain_sum")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--most-tokens", type=int, default=3_000_000)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "ratchet-curriculum-runs")
    parser.add_argument("--dry", action="store_true", help="write no files here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = Task(options.family, tuple(options.levels), options.rows, options.most_tokens)
    runs = [
        kept(options.keep / f"{task.family}-{arm}-{seed}.json", task, arm, seed)
        for seed in options.seeds
        for arm in options.strategies
    ]
    text = as_markdown(runs, vars(task), time.strftime("%Y-%m-%d"))
    print(text)
    if not options.dry:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
        lines = ",\n".join(json.dumps(run) for run in runs)
        figures = f'{{"task": {json.dumps(vars(task))}, "runs": [\n{lines}\n]}}\n'
        (HERE / "results.json").write_text(figures, encoding="utf-8")


if __name__ == "__main__":
    main()
