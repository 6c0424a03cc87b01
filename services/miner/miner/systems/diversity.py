"""Diversity analyzer: coverage and novelty of each queued batch, against the mix that was requested."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ratchet.data.example import Example
from ratchet.events.catalogue import BatchQueued, CoverageMeasured
from ratchet.ledger import Transaction
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.queue import usage_counts
from ratchet.ledger.tables import BatchRow, CoverageRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.tasks import registry
from ratchet.tasks.graders import problem_of, text_key
from ratchet.user_tasks.task import all_tasks
from sqlalchemy import select
from sqlalchemy.orm import Session

from miner.batch_coverage import Coverage as Measured
from miner.batch_coverage import Level, Row, measure
from miner.text_history import Novelty, opened

NAME = "diversity"
REPORT_EVERY = 1_000


def find(session: Session, _settings: Settings) -> list[Subject]:
    """Batches that have passed the gate on their way to training, the newest first."""
    query = select(BatchRow.id).where(
        BatchRow.artifact.is_not(None), BatchRow.task.is_(None), lacks_verdict(NAME, "batch", BatchRow.id)
    )
    return [Subject("batch", id) for id in session.scalars(query.order_by(BatchRow.queued_at.desc()))]


def do(work: Work) -> Outcome:
    with work.read() as session:
        batch = session.get_one(BatchRow, work.subject.id)
    assert batch.artifact is not None, "found by it"
    found = measure(_rows(work, batch.artifact), _wanted(batch), lambda keys: _usage(work, keys))
    found = found.model_copy(update={"texts": _texts(work, batch, batch.artifact)})
    numbers = found.model_dump(mode="json")

    def effects(tx: Transaction) -> None:
        tx.session.add(CoverageRow(batch_id=batch.id, numbers=numbers, created_at=tx.now))

    return Verdict("measured", _words(found), numbers, effects, (CoverageMeasured(batch_id=batch.id),))


def _rows(work: Work, artifact: str) -> Iterator[Row]:
    for example in _examples(work, artifact, "rows"):
        problem = problem_of(example)
        if problem is None:
            yield Row(example, text_key(example))
        else:
            family = registry.get(problem.family)
            yield Row(example, problem.key, family.traits(problem), frozenset(family.features))


def _usage(work: Work, keys: Collection[str]) -> dict[str, int]:
    with work.read() as session:
        return usage_counts(session, keys)


def _texts(work: Work, batch: BatchRow, artifact: str) -> Novelty:
    """The batch compared with history; near-duplicates are searched in free text alone.

    Rows of users' tasks are left out: they come again with every pass, and were compared when they were stored.
    """
    settings = work.settings.diversity
    with work.read() as session:
        repeated = {task.name for task in all_tasks(session)}
    with opened(work.settings.history_folder, settings.history_examples) as history:
        rows = _examples(work, artifact, "texts")
        texts = ((row.prompt_text, registry.find(row.family) is None and row.family not in repeated) for row in rows)
        return history.add(batch.id, texts, settings.near)


def _examples(work: Work, artifact: str, what: str) -> Iterator[Example]:
    for number, line in enumerate(work.artifacts.open_lines(artifact)):
        if number % REPORT_EVERY == 0:
            work.progress(f"{number} {what}")
        yield Example.model_validate_json(line)


def _words(found: Measured) -> str:
    words = (
        f"{found.rows} rows, {found.distinct} different, {found.novelty:.0%} of them new; entropy {found.entropy:.2f}"
    )
    texts = found.texts
    if texts is not None and texts.compared:
        near = f"{texts.repeats} are near another of the batch, {texts.known} near an earlier one"
        words += f"; of {texts.compared} texts {near}"
    return words


def _wanted(batch: BatchRow) -> dict[Level, float]:
    """The mix that a generated batch was asked for; none for other origins."""
    cells = ((name.rpartition("/"), weight) for name, weight in batch.provenance.get("mix", {}).items())
    return {(family, int(level)): float(weight) for (family, _, level), weight in cells}


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Measures duplicates, coverage and novelty of every queued batch.",
    emits=(CoverageMeasured,),
    sweep_s=600.0,
    lanes=(Lane("measure", (BatchQueued,), find, do),),
    order=8,
    pending="admitted batches",
)
