"""Evaluation speed of testing beside lm-evaluation-harness's HF backend: same model, same items, one run.

    python -m benchmarks.evaluation.run            # writes RESULTS.md (with speed.md at its end) and results.json
    python -m benchmarks.evaluation.run --cases sums --items 300 --dry --models FOLDER

The harness takes part where `lm-eval` is installed (no part of Ratchet: install it into an environment of its own);
else its columns say that it was not measured. There are three cases, each a tiny model that learns first, with the
default hyperparameters, and then is tested:

- sums: sums of levels 1 to 3, learnt until nearly all answers are right. All answers are nearly of one length.
- shipped: the three pools as the default settings draw them: sums, words to reverse and digits to sort, six levels of
  each, learnt from as many rows of all of them. Answers have 4 to 50 tokens.
- shipped, early: the same items, and a model that has seen a sixth of the rows: most of its answers are wrong.

Both sides answer the same chats greedily, in this process, on one thread, the model being loaded before the clock
starts. Each runs at several batch sizes, in turn, and its best one counts. Three things are timed:

- whole: all that a user gets. Here a testing session: the suite is read, every item answered with the log-probability
  of every token, graded, and written as a record. There `simple_evaluate` with a task of the same items (exact match of
  what ends the answer, samples logged, no bootstrap; the list of its built-in tasks is read beforehand), whose results
  and samples its EvaluationTracker then writes.
- with the loss of the right answers, as testing measures it on the eval pool: the same here with `score_gold`; there
  the whole run, then the `loglikelihood` of every right answer and its end, given as tokens.
- generation: `LocalGenerator.generate`, which renders the chats, keeps log-probabilities and knows of no expected
  answer, and `generate_until` alone, which gets rendered prompts and keeps no log-probabilities.

Testing gives each item's right answer to the generator as a draft: how far the model says it by itself is read off in
one forward pass (speculative decoding). The harness knows the right answers too, and has no such thing. Answers of all
runs are compared, so that a draft that changed one would show.

The clock is this process's CPU time, which is the wall time of an idle machine; what the harness starts in other
processes (a look at the environment) does not count against it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers

from benchmarks.evaluation.cases import CASES, trained_model
from benchmarks.evaluation.contenders import NEW_TOKENS, Answers, Ours
from tests.support.examples import write_examples

SMOKE = ("--cases", "sums", "--learn", "4", "--items", "2", "--rounds", "0", "--batch-sizes", "2", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
SIDES = ("ours", "harness") if HAS_HARNESS else ("ours",)
KINDS = ("whole", "with gold loss", "generation")


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


def measure(
    model: Path, suite: Path, scratch: Path, rounds: int, count: int, sizes: Sequence[int]
) -> tuple[dict[str, Best], float]:
    """By side and kind of run; and the harness's seconds for one item, which are about its fixed cost."""
    found = {f"{side} {kind}": Best() for side in SIDES for kind in KINDS}
    fixed_s = float("inf")
    for batch_size in [size for size in sizes if size < 2 * count]:
        sides = {side: contender(side)(model, suite, batch_size, scratch) for side in SIDES}
        runs = [(side, kind, sides[side].runs()[kind]) for kind in KINDS for side in SIDES]
        for number in range(1 + rounds):
            for side, kind, run in runs:
                clock, best = sides[side].clock, found[f"{side} {kind}"]
                clock.total_s = 0.0
                took_s, answers = timed(run)
                if number == 0:
                    best.answers = answers()
                if number == 0 < rounds:
                    continue
                if count / took_s > best.by_batch_size.get(batch_size, 0.0):
                    best.by_batch_size[batch_size] = count / took_s
                    best.forward[batch_size] = clock.total_s / took_s
        if HAS_HARNESS:
            fixed_s = min(fixed_s, timed(partial(sides["harness"].evaluate, limit=1))[0])
    return found, fixed_s


def contender(side: str) -> Any:
    if side == "ours":
        return Ours
    from benchmarks.evaluation.harness import Harness  # needs lm-eval

    return Harness


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what the run returned."""
    begun_at = time.process_time()
    result = run()
    return time.process_time() - begun_at, result


def same_answers(found: dict[str, Best]) -> int:
    texts = [[answer.strip() for answer, _ in best.answers] for best in found.values()]
    return sum(len(set(answers)) == 1 for answers in zip(*texts, strict=True))


def case_text(title: str, found: dict[str, Best], fixed_s: float) -> str:
    ours = found["ours whole"]
    count = len(ours.answers)
    lengths = sorted(len(answer) for answer, _ in ours.answers)
    rows = {
        "whole": "whole: answer, grade, record",
        "with gold loss": "the same, and the loss of the right answer",
        "generation": "generation alone, without expected answers",
    }
    table = "\n".join(row(what, found[f"ours {kind}"], found.get(f"harness {kind}")) for kind, what in rows.items())
    return f"""## {title}

{count} items, answers of {lengths[0]} to {lengths[-1]} characters, {sum(lengths) / count:.0f} in the mean.

| what | testing, items/s (batch size) | lm-evaluation-harness, items/s (batch size) | ratio |
|---|---|---|---|
{table}

{beside(ours, found.get("harness whole"), same_answers(found), fixed_s)}
"""


def beside(ours: Best, harness: Best | None, same: int, fixed_s: float) -> str:
    count = len(ours.answers)
    if harness is None:
        return f"Right: {ours.right / count:.1%}. lm-evaluation-harness is not installed here, so it was not measured."
    return f"""Right: {ours.right / count:.1%} here, {harness.right / count:.1%} there; the same answer in {same} of \
{count} items in all six runs. Of the harness's whole run of {count / harness.speed:.2f} s, {fixed_s:.2f} s are what \
it takes for a single item. The forward pass takes {ours.forward[ours.batch_size]:.0%} of testing's whole run and \
{harness.forward[harness.batch_size]:.0%} of the harness's."""


def row(what: str, ours: Best, harness: Best | None) -> str:
    if harness is None:
        return f"| {what} | {ours.speed:,.0f} ({ours.batch_size}) | not measured | – |"
    sides = " | ".join(f"{best.speed:,.0f} ({best.batch_size})" for best in (ours, harness))
    return f"| {what} | {sides} | {ours.speed / harness.speed:.2f} |"


def head(options: argparse.Namespace, load: float) -> str:
    busy = ": other work ran beside it, so trust the ratios only." if load > 2 else "."
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if HAS_HARNESS:
        versions += f", lm-eval {version('lm_eval')}"
    return f"""# Evaluation speed

`{shlex.join(["python", "-m", "benchmarks.evaluation.run", *sys.argv[1:]])}`, {time.strftime("%Y-%m-%d")}, \
{platform.machine()}, one thread, {versions}. At most {NEW_TOKENS} new tokens. Best of {options.rounds} warm rounds at \
the best of the batch sizes {", ".join(map(str, options.batch_sizes))}; model load excluded; CPU time. Load average at \
first: {load:.1f} on {os.cpu_count()} cores{busy} The aim is a ratio of 3 in the whole run.

Testing hands each item's right answer to the generator as a draft: how far the model says it by itself is read off in \
one forward pass, and only what comes after is decoded token by token. "Generation alone" is without drafts; \
answers of all runs are compared. The loss of the right answers comes with the draft. Where it is not asked for, \
drafts are left out for a while as soon as most of what they say is refused: in nothing else do the first two rows \
differ here.
"""


def figures(found: dict[str, Best]) -> dict[str, Any]:
    sides = {
        name: {
            "items_per_s": best.speed,
            "batch_size": best.batch_size,
            "by_batch_size": best.by_batch_size,
            "forward_share": best.forward,
        }
        for name, best in found.items()
    }
    ratios = {kind: found[f"ours {kind}"].speed / found[f"harness {kind}"].speed for kind in KINDS if HAS_HARNESS}
    ours = found["ours whole"]
    return sides | {"ratios": ratios, "same": same_answers(found), "items": len(ours.answers), "right": ours.right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2000, help="sums; the shipped suites have their own size")
    parser.add_argument("--rounds", type=int, default=2, help="after a first one, which counts only if there are none")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--learn", type=int, help="rows that the models learn from; without it as many as the case says"
    )
    parser.add_argument("--models", type=Path, help="a folder that keeps the trained models for another run")
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        models = options.models or scratch
        cases = {case: CASES[case].of_rows(options.learn) for case in options.cases}
        checkpoints = {case: trained_model(cases[case], models / case.replace(", ", "-")) for case in cases}
        texts = [head(options, os.getloadavg()[0])]
        for case, model in checkpoints.items():
            items = CASES[case].items(options.items)
            suite = write_examples(scratch / "suite.jsonl", items)
            found, fixed_s = measure(model, suite, scratch, options.rounds, len(items), options.batch_sizes)
            texts.append(case_text(CASES[case].title, found, fixed_s))
            results[case] = figures(found)
            print(texts[-1], flush=True)
            if not options.dry:
                speed = (HERE / "speed.md").read_text(encoding="utf-8")
                (HERE / "RESULTS.md").write_text("\n".join([*texts, speed]), encoding="utf-8")
                (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
