"""Diversity analyzer: what each queued batch covers, against the mix it was to follow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from random import Random

from ratchet.data.example import Example
from ratchet.evaluation.stored import stored_suite
from ratchet.events.catalogue import BatchQueued, CoverageMeasured
from ratchet.inference.embeddings import Embedder
from ratchet.ledger import Transaction
from ratchet.ledger.suites import current
from ratchet.ledger.tables import Batch, Coverage
from ratchet.ledger.undecided import lacks_verdict
from ratchet.ledger.uses import uses_of
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.tasks import registry
from ratchet.tasks.graders import problem_of, text_key
from sqlalchemy import select
from sqlalchemy.orm import Session

from miner.diversity import Coverage as Measured
from miner.diversity import Level, Row, measure
from miner.embedded import Embedded, embedded_coverage
from miner.text_history import Novelty, opened

NAME = "diversity"
REPORT_EVERY = 1_000


def find(session: Session, _settings: Settings) -> list[Subject]:
    """Batches that have passed the gate, the newest first."""
    query = select(Batch.id).where(Batch.artifact.is_not(None), lacks_verdict(NAME, "batch", Batch.id))
    return [Subject("batch", id) for id in session.scalars(query.order_by(Batch.queued_at.desc()))]


def do(work: Work) -> Outcome:
    with work.read() as session:
        batch = session.get_one(Batch, work.subject.id)
    assert batch.artifact is not None, "found by it"
    found = measure(_rows(work, batch.artifact), _wanted(batch), lambda keys: _uses(work, keys))
    texts, embedded = _texts(work, batch.id, batch.artifact), _embedded(work, batch.artifact)
    found = found.model_copy(update={"texts": texts, "embedded": embedded})
    numbers = found.model_dump(mode="json")

    def effects(tx: Transaction) -> None:
        tx.session.add(Coverage(batch_id=batch.id, numbers=numbers, created_at=tx.now))

    return Verdict("measured", _words(found), numbers, effects, (CoverageMeasured(batch_id=batch.id),))


def _rows(work: Work, artifact: str) -> Iterator[Row]:
    for example in _examples(work, artifact, "rows"):
        problem = problem_of(example)
        if problem is None:
            yield Row(example, text_key(example))
        else:
            family = registry.get(problem.family)
            yield Row(example, problem.key, family.traits(problem), frozenset(family.features))


def _uses(work: Work, keys: Collection[str]) -> dict[str, int]:
    with work.read() as session:
        return uses_of(session, keys)


def _texts(work: Work, batch: str, artifact: str) -> Novelty:
    """The batch beside history; near-duplicates are looked for in free text alone."""
    settings = work.settings.diversity
    with opened(work.settings.history_folder, settings.history_examples) as history:
        rows = _examples(work, artifact, "texts")
        return history.add(batch, ((_said(row), registry.find(row.family) is None) for row in rows), settings.near)


def _embedded(work: Work, artifact: str) -> Embedded | None:
    """A sample of the batch beside the probe suite, in the space of the server that is set; None without one."""
    settings = work.settings.diversity
    if settings.embeddings_url is None:
        return None
    with work.read() as session:
        probe = stored_suite(work.artifacts, current(session, "probe")).items
    rows = _sampled(map(_said, _examples(work, artifact, "rows")), settings.embeddings_rows)
    reference = _sampled(map(_said, probe), settings.embeddings_rows)
    with Embedder(settings.embeddings_url, settings.embeddings_model, work.settings.inference) as server:
        return embedded_coverage(server.embed(reference), server.embed(rows), settings.embeddings_model)


def _sampled(texts: Iterable[str], most: int) -> list[str]:
    """At most so many, by lot and the same ones every time, without holding the others (Vitter 1985, algorithm R)."""
    random, kept = Random("embedded"), list[str]()
    for number, text in enumerate(texts):
        place = number if number < most else random.randrange(number + 1)
        if place < most:
            kept[place : place + 1] = [text]
    return kept


def _said(example: Example) -> str:
    return "\n".join(message.content for message in example.prompt)


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
        words += (
            f"; of {texts.compared} texts {texts.repeats} repeat one of the batch nearly, {texts.known} an earlier one"
        )
    if found.embedded is not None:
        words += f"; {found.embedded.covered:.0%} of the probe's items have a row near them ({found.embedded.model})"
    return words


def _wanted(batch: Batch) -> dict[Level, float]:
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
)
