"""Testing's engines beside each other: its own process, a vLLM that it starts, and lm-evaluation-harness.

    python -m benchmarks.evaluation.engines --model FOLDER --vllm PROGRAM       # writes ENGINES.md

FOLDER is a model as users have it. Each side answers the same items greedily and grades them; the first two also
measure the loss of every right answer, as testing does on its eval suite. "Ready" is until the model can answer: loaded
here, started there. "Answered" is all after that. The clock is wall time on a machine without other work, since vLLM
and the harness work in processes and threads of their own. The harness takes part where `lm-eval` is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from ratchet.evaluation.answer_suites import SuiteFile, TestingSession, TestingSpec
from ratchet.inference.generator import BatchGenerator, Decoding
from ratchet.settings.serving import InferenceSettings

from benchmarks.evaluation.cases import sums
from benchmarks.evaluation.contenders import TASK, Answers, answers_in, fresh
from tests.support.examples import write_examples
from tests.support.server_processes import VLLM_COMMAND
from tests.support.tiny_model import build_tiny_model

SMOKE = ("--items", "6", "--batch-sizes", "4", "--new-tokens", "8", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end: a tiny model, and the stand-in for vLLM."""
REAL_COMMAND = (
    "{program} serve {{path}} --served-model-name {{name}} --host 127.0.0.1 --port {{port}} --dtype {{dtype}} "
    "--generation-config vllm --max-model-len 1024 {more}"
)
HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None


@dataclass
class Side:
    """What one engine took, in seconds, and what it answered."""

    name: str
    ready_s: float
    answered_s: float
    answers: Answers


class TimedSession(TestingSession):
    """A testing session that notes when its model was ready."""

    __test__ = False
    ready_at = 0.0

    def _opened(self) -> AbstractContextManager[BatchGenerator]:
        return self._noted()

    @contextmanager
    def _noted(self) -> Any:
        with super()._opened() as generator:
            self.ready_at = time.perf_counter()
            yield generator


def ours(name: str, options: argparse.Namespace, suite: Path, scratch: Path, inference: dict[str, Any]) -> Side:
    settings = InferenceSettings.model_validate({"device": options.device, "timeout_s": 3600.0, **inference})
    spec = TestingSpec(
        checkpoint=options.model,
        suites=(SuiteFile(name=TASK, version="1", grader="1", path=suite, score_gold=True),),
        work_folder=fresh(scratch / "ours"),
        decoding=Decoding(max_new_tokens=options.new_tokens),
        inference=settings,
    )
    session, begun_at = TimedSession(spec, lambda _message: None), time.perf_counter()
    result = session.run()
    ended_at = time.perf_counter()
    assert result.broken is None, result.broken
    answers = answers_in(result.suites[TASK].items, True)
    return Side(name, session.ready_at - begun_at, ended_at - session.ready_at, answers)


def harness(options: argparse.Namespace, suite: Path, scratch: Path, batch_size: int) -> Side:
    from benchmarks.evaluation.harness import Harness  # needs lm-eval

    begun_at = time.perf_counter()
    side = Harness(options.model, suite, batch_size, scratch)
    ready_at = time.perf_counter()
    answers = side.with_gold_loss()
    return Side(
        f"lm-evaluation-harness, batches of {batch_size}",
        ready_at - begun_at,
        time.perf_counter() - ready_at,
        answers(),
    )


def table(sides: list[Side], count: int) -> str:
    first = sides[0]
    lines = [
        "| engine | ready, s | answered, s | items/s | beside the first | same answers |",
        "|---|---|---|---|---|---|",
    ]
    for side in sides:
        same = sum(a[0].strip() == b[0].strip() for a, b in zip(side.answers, first.answers, strict=True))
        lines.append(
            f"| {side.name} | {side.ready_s:.1f} | {side.answered_s:.1f} | {count / side.answered_s:.2f} "
            f"| {first.answered_s / side.answered_s:.2f}× | {same} of {count} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder with a model; without it a tiny one is made")
    parser.add_argument("--vllm", help="the program `vllm`; without it the stand-in of the tests, which is no measure")
    parser.add_argument("--vllm-options", default="", help="more options of `vllm serve`, such as --enforce-eager")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=(16, 64))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dry", action="store_true", help="write no file")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        options.model = options.model or build_tiny_model(scratch / "model", seed=3, initializer_range=0.3)
        items = sums(options.items)
        suite = write_examples(scratch / "suite.jsonl", items)
        command = REAL_COMMAND.format(program=options.vllm, more=options.vllm_options) if options.vllm else VLLM_COMMAND
        runs: list[Callable[[], Side]] = []
        for size in options.batch_sizes:
            own, there = {"batch_size": size}, {"engine": "vllm", "vllm_command": command, "batch_size": size}
            runs.append(partial(ours, f"own engine, batches of {size}", options, suite, scratch, own))
            runs.append(partial(ours, f"vLLM, {size} at once", options, suite, scratch, there))
            if HAS_HARNESS:
                runs.append(partial(harness, options, suite, scratch, size))
        sides = []
        for run in runs:
            sides.append(run())
            print(
                f"{sides[-1].name}: ready after {sides[-1].ready_s:.1f} s, answered in {sides[-1].answered_s:.1f} s",
                flush=True,
            )
    text = f"""# The engines of testing

`{shlex.join(["python", "-m", "benchmarks.evaluation.engines", *sys.argv[1:]])}`, {date.today()}, {os.cpu_count()} \
cores, load before {load:.1f}. {len(items)} sums, at most {options.new_tokens} new tokens, and the loss of the right \
answers. {"" if options.vllm else "Not a vLLM, but the stand-in of the tests: no measure. "}\
{"" if HAS_HARNESS else "lm-evaluation-harness is not installed here, so it was not measured."}

{table(sides, len(items))}
"""
    print(text)
    if not options.dry:
        Path(__file__).with_name("ENGINES.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
