"""Passes a submitted batch through the data gate, publishes its accepted and its quarantined rows, and queues it.

Rows of a user's task are stored instead: batches are made from them again and again, which the gate then lets pass.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

from ratchet.data.jsonl import read_examples
from ratchet.data.near_duplicates import NearDuplicates, common_runs
from ratchet.evaluation.build_suites import held_out
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS, Suite
from ratchet.events.catalogue import BatchQueued, BatchRejected, BatchStored
from ratchet.inference.prompt_format import PromptFormat
from ratchet.ledger import Transaction
from ratchet.ledger.queue import add_usage_counts, usage_counts
from ratchet.ledger.suites import current
from ratchet.ledger.tables import BatchRow, CheckpointRow, TaskRow
from ratchet.systems import Verdict, Work
from ratchet.tasks import registry
from ratchet.user_tasks.supply import ACTIVE, STORED, USED_UP, stored_batches, stored_rows
from sqlalchemy import select

from miner.data_gate import Accepted, DataGate, GatePolicy, GateReport, TokenCounter, UsageLookup
from miner.task_rows import reported

REPORT_EVERY = 500
ROWS = "rows.jsonl"
MADE = ("generation", "correction")
"""Origins of batches whose free text comes from rows that have been stored."""


@dataclass
class GateStream:
    """Streams rows through the gate: accepted ones come out, the others go to the quarantine file."""

    gate: DataGate
    quarantine: Path
    work: Work
    usage: Counter[str] = field(default_factory=Counter)

    def lines(self, submitted: Path) -> Iterator[str]:
        """Accepted rows as JSONL, without line ends."""
        with self.quarantine.open("w", encoding="utf-8") as quarantine:
            for number, verdict in enumerate(self.gate.examine(read_examples(submitted)), start=1):
                if number % REPORT_EVERY == 0:
                    self.work.progress(f"{number} rows")
                if isinstance(verdict, Accepted):
                    self.usage[str(verdict.example.metadata["key"])] += 1
                    yield verdict.example.to_line()
                else:
                    _write(quarantine, verdict.to_line())


def gate_batch(work: Work, batch: BatchRow) -> Verdict:
    """Queue or store the accepted rows; every other row is kept in the quarantine artifact."""
    stream = _gate_stream(work, batch)
    submitted = work.artifacts.fetch(batch.submitted_artifact) / ROWS
    provenance = {"batch": batch.id, "submitted": batch.submitted_artifact}
    accepted = work.artifacts.publish_lines(stream.lines(submitted), "batch", provenance)
    report = stream.gate.report
    quarantine = None
    if report.rows > report.accepted:
        quarantine = work.artifacts.publish(stream.quarantine, "batch", provenance, consume=True).id
    if not report.accepted:
        return _rejected(batch, report, quarantine)
    if batch.task is not None:
        return _stored(batch, batch.task, report, accepted.id, quarantine)
    return _queued(batch, report, accepted.id, quarantine, stream.usage)


def _gate_stream(work: Work, batch: BatchRow) -> GateStream:
    settings = work.settings
    with work.read() as session:
        base = session.scalars(select(CheckpointRow).where(CheckpointRow.ordinal == 0)).one()
        suites = [load_suite(work.artifacts, current(session, pool)) for pool in POOLS]
        stored = stored_batches(session, batch.task) if batch.task is not None else []
    counter = TokenCounter(work.artifacts.fetch(base.artifact), settings.profile.template_variables)
    gate = DataGate(
        GatePolicy(
            max_tokens=settings.hyperparams.max_length,
            epoch_cap=settings.queue.epoch_cap,
            repeats_text=batch.task is None and batch.origin in MADE,
        ),
        held_out(settings.suites).with_keys(key for suite in suites for key in suite.keys),
        counter,
        _usage_lookup(work),
        _near(suites),
        PromptFormat.configured(settings, batch.submitted_at),
        reported(work, stored_rows(work.artifacts, stored), "rows that the task has already") if stored else (),
    )
    return GateStream(gate, work.folder / "quarantine.jsonl", work)


def _usage_lookup(work: Work) -> UsageLookup:
    """Reads the ledger's counts of these keys, in a transaction of their own: a batch can take minutes."""

    def lookup(keys: Collection[str]) -> dict[str, int]:
        with work.read() as session:
            return usage_counts(session, keys)

    return lookup


def _near(suites: list[Suite]) -> NearDuplicates:
    """The free texts of the suites; items of known families are compared by their keys."""
    texts: dict[str, list[str]] = defaultdict(list)
    for suite in suites:
        for item in suite.items:
            if registry.find(item.family) is None:
                texts[item.family or ""].append(item.prompt_text)
    common = frozenset().union(*(common_runs(own) for own in texts.values()))
    return NearDuplicates(chain.from_iterable(texts.values()), common=common)


def _write(file: IO[str], line: str) -> None:
    file.write(line + "\n")


def _stored(batch: BatchRow, task_name: str, report: GateReport, artifact: str, quarantine: str | None) -> Verdict:
    """The task is to be taught again from the start: its new rows have not been."""

    def effects(tx: Transaction) -> None:
        row = _accepted(tx, batch.id, report, artifact, quarantine)
        if row.state == "submitted":
            row.state = STORED
        task = tx.session.get(TaskRow, task_name)
        if task is not None:
            task.state, task.reason, task.passes, task.stale, task.updated_at = ACTIVE, "", 0.0, 0, tx.now

    event = BatchStored(batch_id=batch.id, task=task_name)
    return Verdict("stored", _words(report), report.model_dump(mode="json"), effects, (event,))


def _accepted(tx: Transaction, batch_id: str, report: GateReport, artifact: str, quarantine: str | None) -> BatchRow:
    """The batch's row with what passed, and what did not."""
    row = tx.session.get_one(BatchRow, batch_id)
    row.artifact, row.quarantine_artifact = artifact, quarantine
    row.examples, row.tokens, row.quarantined = report.accepted, report.tokens, report.rows - report.accepted
    row.report = report.model_dump(mode="json")
    return row


def _queued(batch: BatchRow, report: GateReport, artifact: str, quarantine: str | None, usage: Counter[str]) -> Verdict:
    def effects(tx: Transaction) -> None:
        row = _accepted(tx, batch.id, report, artifact, quarantine)
        if row.state == "submitted":
            row.state, row.queued_at = "queued", tx.now
        add_usage_counts(tx, usage)

    numbers = report.model_dump(mode="json")
    return Verdict("queued", _words(report), numbers, effects, (BatchQueued(batch_id=batch.id),))


def _rejected(batch: BatchRow, report: GateReport, quarantine: str | None) -> Verdict:
    """A task that was used up stays so, and says why its new rows have changed nothing."""
    reason = f"no row passed: {_words(report)}"

    def effects(tx: Transaction) -> None:
        row = tx.session.get_one(BatchRow, batch.id)
        row.state, row.finished_at, row.quarantine_artifact = "rejected", tx.now, quarantine
        row.quarantined, row.report = report.rows, report.model_dump(mode="json")
        task = tx.session.get(TaskRow, batch.task) if batch.task is not None else None
        if task is not None and task.state == USED_UP and batch.origin == "user":
            task.reason, task.updated_at = f"{reason}. Add rows: `ratchet data add FILE --task {task.name}`.", tx.now

    event = BatchRejected(batch_id=batch.id, reason=reason)
    return Verdict("rejected", reason, report.model_dump(mode="json"), effects, (event,))


def _words(report: GateReport) -> str:
    refused = ", ".join(f"{count} {reason}" for reason, count in report.reasons.items())
    return f"{report.accepted} of {report.rows} rows accepted" + (f"; quarantined: {refused}" if refused else "")
