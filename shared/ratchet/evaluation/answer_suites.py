"""Testing's work in a child process: load a checkpoint once, answer every item of every suite, grade, record.

The spec and the result travel as JSON. A broken checkpoint is a result; any other failure is an exception.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.data.example import Example
from ratchet.errors import BrokenCheckpoint, DataError, EmptyEvaluation
from ratchet.evaluation.answer_faults import answer_faults
from ratchet.evaluation.noise_floor import NoiseFloor, noise_floor, noise_sample
from ratchet.evaluation.record import Evaluation, Extraction, ItemRecord, Metric, RecordKey
from ratchet.evaluation.record_log import RecordLog
from ratchet.inference.generator import BatchGenerator, Decoding, Generation
from ratchet.inference.open_model import opened_model
from ratchet.inference.prompt_format import PromptFormat, decoding_key
from ratchet.lines import read_lines
from ratchet.settings.serving import InferenceSettings
from ratchet.tasks.error_classes import classify
from ratchet.tasks.graders import key_and_grade, text_key

UNKNOWN_FAMILY = "text"
"""Family of a record whose item names none."""

NEARLY_ALL = 0.98
"""Share of items from which on a fault is the model's and not the items'."""

Progress = Callable[[dict[str, Any]], None]


class SuiteFile(BaseModel):
    """One suite: a JSONL file of examples. ``version`` and ``grader`` go into the record's key.

    ``score_gold``: whether the loss of the right answers is measured too. ``noise_known``: the conditions (engine,
    dtype, GPU class) under which its noise floor is known; it is measured under others. None if it is not wanted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str
    grader: str
    path: Path
    score_gold: bool = False
    noise_known: tuple[tuple[str, str, str], ...] | None = None


class TestingSpec(BaseModel):
    """One checkpoint folder and the suites to answer.

    ``weights`` is the digest that the folder must have. ``parent_degenerate`` says that the checkpoint before this
    one also gave no answers (as an untrained model does): then bad output alone does not make this one broken.
    ``earlier`` are the work folders of runs of this checkpoint that were killed.
    ``system_prompt`` is the configured base, ``date`` the text that its ``{date}`` stands for.
    """

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    weights: str | None = None
    suites: tuple[SuiteFile, ...] = Field(min_length=1)
    work_folder: Path
    earlier: tuple[Path, ...] = ()
    decoding: Decoding = Decoding()
    inference: InferenceSettings = InferenceSettings()
    profile: str = "plain"
    profile_options: dict[str, Any] = Field(default_factory=dict)
    template_variables: dict[str, Any] = Field(default_factory=dict)
    system_prompt: str = ""
    date: str = ""
    parent_degenerate: bool = True


class SuiteResult(BaseModel):
    """The result of one suite. ``items`` is the file of its ItemRecords, in the suite's order; ``correct`` of the
    graded ones are right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    correct: int
    key: RecordKey
    items: Path
    tokens: int
    tokens_per_s: float
    """Speed of this run; what an earlier, killed run had answered does not count."""
    noise: NoiseFloor | None = None


class TestingResult(BaseModel):
    """The child's result. ``broken`` is why the checkpoint is rejected; ``degenerate`` is set in any case."""

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid")

    broken: str | None = None
    degenerate: str | None = None
    weights: str | None = None
    suites: dict[str, SuiteResult] = Field(default_factory=dict)


def run_suites(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Takes a TestingSpec, returns a TestingResult. After a kill the next run resumes at the first unanswered batch."""
    return TestingSession(TestingSpec.model_validate(spec), progress).run().model_dump(mode="json")


class TestingSession:
    """One checkpoint under test."""

    __test__ = False

    def __init__(self, spec: TestingSpec, progress: Progress):
        self._spec = spec
        self._progress = progress
        self._census = OutputCensus()
        self._prompt_format = PromptFormat.named(
            spec.profile, spec.profile_options, spec.system_prompt, spec.date, spec.template_variables
        )

    def run(self) -> TestingResult:
        self._spec.work_folder.mkdir(parents=True, exist_ok=True)
        suites = [(suite, read_suite(suite.path)) for suite in self._spec.suites]
        try:
            with self._opened() as generator:
                results = {suite.name: self._answer(generator, suite, items) for suite, items in suites}
                weights = generator.weights
        except BrokenCheckpoint as error:
            return TestingResult(broken=str(error))
        degenerate = self._census.verdict()
        is_usable = degenerate is None or self._spec.parent_degenerate
        return TestingResult(
            broken=None if is_usable else f"degenerate output: {degenerate}",
            degenerate=degenerate,
            weights=weights,
            suites=results,
        )

    def _opened(self) -> AbstractContextManager[BatchGenerator]:
        spec = self._spec
        return opened_model(
            spec.checkpoint,
            spec.inference,
            spec.weights,
            self._prompt_format,
            spec.work_folder,
            lambda: self._progress({"note": "answering"}),
        )

    def _answer(self, generator: BatchGenerator, suite: SuiteFile, by_id: dict[str, Example]) -> SuiteResult:
        key = self._key(generator, suite)
        ids, items = list(by_id), list(by_id.values())
        log = RecordLog(self._spec.work_folder, suite.name, key.model_dump(), ids, self._spec.earlier)
        done = frozenset(index for index, item_id in enumerate(ids) if item_id in log)
        self._report(suite, log, items)
        started, fresh_tokens = time.perf_counter(), 0
        score_gold = suite.score_gold or any(metric_of(item) == "loss" for item in items)
        refused = self._refused(generator, items)
        if refused:
            nothing, parse = _no_answer(generator.weights), self._prompt_format.parse
            log.append(
                item_record(ids[index], items[index], nothing, parse, score_gold=score_gold)
                for index in sorted(refused)
            )
        asked = [index for index in range(len(items)) if index not in refused]
        chats, golds = [items[index].prompt for index in asked], self._golds([items[index] for index in asked])
        answered = frozenset(place for place, index in enumerate(asked) if index in done)
        for batch, generations in generator.batches(chats, self._spec.decoding, answered, golds, score_gold):
            log.append(
                item_record(
                    ids[asked[place]], items[asked[place]], generation, self._prompt_format.parse, score_gold=score_gold
                )
                for place, generation in zip(batch, generations, strict=True)
            )
            fresh_tokens += sum(len(generation.token_ids) for generation in generations)
            self._report(suite, log, items)
        elapsed_s = time.perf_counter() - started
        path, records = log.finish()
        self._census.add(records)
        noise = self._noise(generator, suite, key, dict(zip(ids, items, strict=True)), records, refused)
        return SuiteResult(
            n=len(records),
            correct=sum(record.correct is True for record in records),
            key=key,
            items=path,
            tokens=sum(len(record.token_logprobs) for record in records),
            tokens_per_s=fresh_tokens / elapsed_s,
            noise=noise,
        )

    def _noise(
        self,
        generator: BatchGenerator,
        suite: SuiteFile,
        key: RecordKey,
        by_id: dict[str, Example],
        records: Sequence[ItemRecord],
        refused: frozenset[int],
    ) -> NoiseFloor | None:
        """What changes when some items are asked again in batches of half the size; None if that is known."""
        if suite.noise_known is None or (key.engine, key.dtype, key.gpu_class) in suite.noise_known:
            return None
        first = noise_sample([record for place, record in enumerate(records) if place not in refused])
        items = [by_id[record.item_id] for record in first]
        self._progress({"note": f"{suite.name}: {len(items)} items again, for the noise floor"})
        again = generator.in_batches_of(max(1, self._spec.inference.batch_size // 2))
        answers = again.generate([item.prompt for item in items], self._spec.decoding)
        second = [
            item_record(record.item_id, item, answer, self._prompt_format.parse, score_gold=False)
            for record, item, answer in zip(first, items, answers, strict=True)
        ]
        one, two = (Evaluation(checkpoint_id=generator.weights, key=key, items=tuple(some)) for some in (first, second))
        return noise_floor(one, two) if items else None

    def _refused(self, generator: BatchGenerator, items: list[Example]) -> frozenset[int]:
        """The items that no checkpoint of this model can be asked: they count as not answered."""
        refusals = generator.refusals([item.prompt for item in items])
        if refusals:
            first, why = next(iter(refusals.items()))
            self._progress({"note": f"{len(refusals)} items cannot be asked, first {items[first].id}: {why}"})
        return frozenset(refusals)

    def _golds(self, items: list[Example]) -> list[str | None]:
        """The right answers in the format of training; None for items without one."""
        golds = [self._prompt_format.apply(item).answer or item.metadata.get("gold") for item in items]
        return [gold if isinstance(gold, str) else None for gold in golds]

    def _key(self, generator: BatchGenerator, suite: SuiteFile) -> RecordKey:
        spec, hardware = self._spec, generator.hardware
        return RecordKey(
            weights=generator.weights,
            suite=suite.version,
            grader=suite.grader,
            decoding=decoding_key(
                spec.decoding, spec.profile, spec.profile_options, spec.system_prompt, spec.template_variables
            ),
            dtype=hardware.dtype,
            engine=hardware.engine,
            gpu_class=hardware.gpu_class,
        )

    def _report(self, suite: SuiteFile, log: RecordLog, items: list[Example]) -> None:
        self._progress({"suite": suite.name, "done": len(log), "total": len(items)})


def item_record(
    item_id: str, item: Example, generation: Generation, parse: Callable[[str], str], *, score_gold: bool
) -> ItemRecord:
    """The record of an answer, graded if its item can be. ``parse`` is the profile's extract_answer; ``score_gold``
    keeps the loss of the right answer."""
    scores = generation.draft_logprobs if score_gold else ()
    is_truncated = generation.finish_reason == "length"
    said = parse(generation.text)
    metric = metric_of(item)
    if metric == "accuracy":
        key, grade = key_and_grade(item, said)
        error = None if grade.correct else classify(item, said, generation.text, finished=not is_truncated)
        extracted, correct = grade.extracted, grade.correct
    else:
        key, extracted, correct, error = text_key(item), said or None, None, None
    extraction: Extraction = "ok" if extracted is not None else "missing"
    return ItemRecord(
        item_id=item_id,
        key=key,
        family=item.family or UNKNOWN_FAMILY,
        level=item.level,
        answer=generation.text,
        extracted=extracted,
        extraction="truncated" if is_truncated else extraction,
        correct=correct,
        token_logprobs=generation.token_logprobs,
        finish_reason=generation.finish_reason,
        latency_s=generation.latency_s,
        token_ids=generation.token_ids,
        gold_nll=-sum(scores) / len(scores) if scores else None,
        gold_tokens=len(scores) or None,
        metric=metric,
        error=error,
    )


def metric_of(item: Example) -> Metric:
    """The metric that the item states; accuracy if it states none. Raises DataError for an unknown one."""
    stated = item.metadata.get("metric", "accuracy")
    if stated not in get_args(Metric):
        raise DataError(f"item {item.id}: metric {stated!r} is none of {', '.join(get_args(Metric))}.")
    return cast(Metric, stated)


def read_suite(path: Path) -> dict[str, Example]:
    """The examples by id, in order. Raises DataError naming file and line, and EmptyEvaluation if there is none."""
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


def _no_answer(weights: str) -> Generation:
    return Generation(
        text="",
        token_ids=(),
        token_logprobs=(),
        finish_reason="stop",
        prompt_tokens=0,
        latency_s=0.0,
        weights=weights,
    )


class OutputCensus:
    """Counts faulty answers over all suites: empty, endless, or repetitive."""

    def __init__(self) -> None:
        self._faults: Counter[str] = Counter()
        self._total = 0

    def add(self, records: Iterable[ItemRecord]) -> None:
        for record in records:
            self._total += 1
            self._faults.update(answer_faults(record))

    def verdict(self) -> str | None:
        """The fault that nearly all answers share, with its numbers, or None."""
        for fault, count in self._faults.most_common(1):
            if count >= NEARLY_ALL * self._total:
                return f"{fault} answers on {count} of {self._total} items"
        return None
