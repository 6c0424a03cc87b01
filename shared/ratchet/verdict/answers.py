"""The answers of a subject to the items, graded, as the record that the gate's tests read.

A folder is answered by testing's own code, in this process; an endpoint over HTTP. Both keep each answer as it comes,
so that a verdict that was interrupted goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.data.example import Example
from ratchet.disk import disk_errors
from ratchet.errors import BrokenCheckpoint, PreconditionFailed
from ratchet.evaluation.answer_suites import (
    SuiteFile,
    TestingResult,
    TestingSession,
    TestingSpec,
    item_record,
    metric_of,
)
from ratchet.evaluation.record import Evaluation, ItemRecord, RecordKey, records_from_lines
from ratchet.evaluation.record_log import RecordLog
from ratchet.inference.generator import Decoding
from ratchet.inference.http_generator import HttpGenerator
from ratchet.inference.prompt_format import PromptFormat, day_of, decoding_key
from ratchet.lines import read_lines
from ratchet.settings import Settings
from ratchet.verdict.items import Items
from ratchet.verdict.subjects import Endpoint, Folder, Subject

GRADER = "verdict@1"
SUITE = "items"

Progress = Callable[[int, int], None]
"""Is told how many items are answered, and of how many."""


@dataclass(frozen=True)
class Asker:
    """Asks subjects for the answers to ``items``, under the settings' profile, decoding and engine.

    ``folder`` keeps the answers, by subject. ``at`` is the time whose day stands for ``{date}``.
    """

    settings: Settings
    items: Items
    folder: Path
    at: float

    def ask(self, subject: Subject, progress: Progress) -> Evaluation:
        """The subject's record. Raises BrokenCheckpoint, TransientError or GenerationError, naming the subject."""
        work = self.folder / subject.digest
        with disk_errors(self.folder):
            work.mkdir(parents=True, exist_ok=True)
        if isinstance(subject, Folder):
            return self._of_folder(subject, work, progress)
        return self._of_endpoint(subject, work, progress)

    @property
    def decoding(self) -> Decoding:
        return Decoding(max_new_tokens=self.settings.suites.max_new_tokens)

    def _of_folder(self, subject: Folder, work: Path, progress: Progress) -> Evaluation:
        settings = self.settings
        items = work / "items.jsonl"
        with disk_errors(work):
            items.write_text("".join(f"{item.to_line()}\n" for item in self.items.items), encoding="utf-8")
        spec = TestingSpec(
            checkpoint=subject.path,
            suites=(SuiteFile(name=SUITE, version=self.items.digest, grader=GRADER, path=items),),
            work_folder=work,
            decoding=self.decoding,
            inference=settings.inference,
            profile=settings.profile.name,
            profile_options=settings.profile.options,
            template_variables=settings.profile.template_variables,
            system_prompt=settings.monitoring.system_prompt_base,
            date=day_of(self.at),
        )

        def report(message: dict[str, object]) -> None:
            if "done" in message:
                progress(int(str(message["done"])), int(str(message["total"])))

        result: TestingResult = TestingSession(spec, report).run()
        if result.broken is not None:
            raise BrokenCheckpoint(f"{subject.name}: {result.broken}")
        answered = result.suites[SUITE]
        records = records_from_lines(read_lines(answered.items))
        return Evaluation(checkpoint_id=subject.name, key=answered.key, items=records)

    def _of_endpoint(self, subject: Endpoint, work: Path, progress: Progress) -> Evaluation:
        items = self.items.items
        unscorable = next((item for item in items if metric_of(item) != "accuracy"), None)
        if unscorable is not None:
            raise PreconditionFailed(
                f"{subject.name} is asked over the chat API, which gives no loss of a text: name a grader for "
                f"{unscorable.family} (--metric accuracy --grader NAME), or give the model's folder."
            )
        key = self._endpoint_key(subject)
        log = RecordLog(work, SUITE, key.model_dump(), [item.id for item in items])
        style = PromptFormat.configured(self.settings, self.at)
        with HttpGenerator(subject.url, subject.model, self.settings.inference) as generator:
            left = [item for item in items if item.id not in log]
            size = 4 * self.settings.inference.concurrency
            for start in range(0, len(left), size):
                some = left[start : start + size]
                log.append(_graded(some, generator, style, self.decoding))
                progress(len(log), len(items))
        _, records = log.finish()
        return Evaluation(checkpoint_id=subject.name, key=key, items=records)

    def _endpoint_key(self, subject: Endpoint) -> RecordKey:
        settings = self.settings
        return RecordKey(
            weights=f"remote:{subject.model}",
            suite=self.items.digest,
            grader=GRADER,
            decoding=decoding_key(
                self.decoding,
                settings.profile.name,
                settings.profile.options,
                settings.monitoring.system_prompt_base,
                settings.profile.template_variables,
            ),
            dtype="unknown",
            engine="openai-api",
            gpu_class="unknown",
        )


def _graded(
    items: Sequence[Example], generator: HttpGenerator, style: PromptFormat, decoding: Decoding
) -> list[ItemRecord]:
    chats = [style.apply_to_prompt(item.prompt) for item in items]
    answers = generator.generate(chats, style.apply_to_decoding(decoding))
    return [
        item_record(item.id, item, answer, style.parse, score_gold=False)
        for item, answer in zip(items, answers, strict=True)
    ]
