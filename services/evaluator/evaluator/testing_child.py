"""Testing's work in a child process: load a checkpoint once, answer every item of every suite, grade, record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ratchet.data.example import Example
from ratchet.errors import BrokenCheckpoint
from ratchet.evaluation.record import Extraction, ItemRecord, RecordKey
from ratchet.inference.dress import Dress, decoding_key
from ratchet.inference.generator import Generation
from ratchet.tasks.graders import key_and_grade

from evaluator.degenerate import OutputCensus
from evaluator.record_log import RecordLog
from evaluator.suite_file import read_suite
from evaluator.testing_spec import SuiteFile, SuiteResult, TestingResult, TestingSpec

if TYPE_CHECKING:
    from ratchet.inference.local import LocalGenerator

UNKNOWN_FAMILY = "text"
"""Where a record stands whose item names no family."""

Progress = Callable[[dict[str, Any]], None]


def run_suites(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Answer a TestingSpec with a TestingResult. Run again after a kill, it goes on at the next unanswered batch."""
    return TestingSession(TestingSpec.model_validate(spec), progress).run().model_dump(mode="json")


class TestingSession:
    """One checkpoint under test."""

    __test__ = False

    def __init__(self, spec: TestingSpec, progress: Progress):
        self._spec = spec
        self._progress = progress
        self._census = OutputCensus()
        self._dress = Dress.named(spec.profile, spec.profile_options, spec.system_prompt, spec.date)

    def run(self) -> TestingResult:
        """A broken checkpoint is a result; whatever else goes wrong is an exception."""
        self._spec.work_folder.mkdir(parents=True, exist_ok=True)
        suites = [(suite, read_suite(suite.path)) for suite in self._spec.suites]
        try:
            generator = self._load()
            results = {suite.name: self._answer(generator, suite, items) for suite, items in suites}
        except BrokenCheckpoint as error:
            return TestingResult(broken=str(error))
        degenerate = self._census.verdict()
        excused = degenerate is None or self._spec.parent_degenerate
        return TestingResult(
            broken=None if excused else f"degenerate output: {degenerate}",
            degenerate=degenerate,
            weights=generator.weights,
            suites=results,
        )

    def _load(self) -> LocalGenerator:
        from ratchet.inference.local import LocalGenerator

        spec = self._spec
        return LocalGenerator.load(spec.checkpoint, spec.inference, spec.weights, self._dress)

    def _answer(self, generator: LocalGenerator, suite: SuiteFile, by_id: dict[str, Example]) -> SuiteResult:
        key = self._key(generator, suite)
        ids, items = list(by_id), list(by_id.values())
        log = RecordLog(self._spec.work_folder, suite.name, key.model_dump(), ids, self._spec.earlier)
        done = frozenset(index for index, item_id in enumerate(ids) if item_id in log)
        self._tell(suite, log, items)
        started, fresh_tokens = time.perf_counter(), 0
        chats = [item.prompt for item in items]
        for batch, generations in generator.batches(
            chats, self._spec.decoding, done, self._golds(items), suite.score_gold
        ):
            log.append(
                self._record(ids[index], items[index], generation, suite.score_gold)
                for index, generation in zip(batch, generations, strict=True)
            )
            fresh_tokens += sum(len(generation.token_ids) for generation in generations)
            self._tell(suite, log, items)
        elapsed_s = time.perf_counter() - started
        path, records = log.finish()
        self._census.add(records)
        return SuiteResult(
            n=len(records),
            correct=sum(record.correct for record in records),
            key=key,
            items=path,
            tokens=sum(len(record.token_logprobs) for record in records),
            tokens_per_s=fresh_tokens / elapsed_s,
        )

    def _golds(self, items: list[Example]) -> list[str | None]:
        """The right answers as they are trained on, where there are any."""
        golds = [self._dress.example(item).answer or item.metadata.get("gold") for item in items]
        return [gold if isinstance(gold, str) else None for gold in golds]

    def _record(self, item_id: str, item: Example, generation: Generation, score_gold: bool) -> ItemRecord:
        scores = generation.draft_logprobs if score_gold else ()
        key, grade = key_and_grade(item, self._dress.answer(generation.text))
        extraction: Extraction = "ok" if grade.extracted is not None else "missing"
        return ItemRecord(
            item_id=item_id,
            key=key,
            family=item.family or UNKNOWN_FAMILY,
            level=item.level,
            answer=generation.text,
            extracted=grade.extracted,
            extraction="truncated" if generation.finish_reason == "length" else extraction,
            correct=grade.correct,
            token_logprobs=generation.token_logprobs,
            finish_reason=generation.finish_reason,
            latency_s=generation.latency_s,
            token_ids=generation.token_ids,
            gold_nll=-sum(scores) / len(scores) if scores else None,
        )

    def _key(self, generator: LocalGenerator, suite: SuiteFile) -> RecordKey:
        spec, hardware = self._spec, generator.hardware
        return RecordKey(
            weights=generator.weights,
            suite=suite.version,
            grader=suite.grader,
            decoding=decoding_key(spec.decoding, spec.profile, spec.profile_options, spec.system_prompt),
            dtype=hardware.dtype,
            engine=hardware.engine,
            gpu_class=hardware.gpu_class,
        )

    def _tell(self, suite: SuiteFile, log: RecordLog, items: list[Example]) -> None:
        self._progress({"suite": suite.name, "done": len(log), "total": len(items)})
