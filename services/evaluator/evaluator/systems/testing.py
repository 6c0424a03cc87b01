"""Automated testing: one pass of each checkpoint over the probe and eval suites, and over others on
request. Every item is stored.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.answer_suites import SuiteFile, SuiteResult, TestingResult, TestingSpec, read_suite
from ratchet.evaluation.load_evaluation import ITEMS
from ratchet.evaluation.noise_floor import NoiseFloor
from ratchet.evaluation.record import Evaluation as Record
from ratchet.evaluation.record import (
    level_rates,
    overall_rate,
    rates_from_json,
    rates_to_json,
    records_from_lines,
    scores_in_words,
    task_scores,
)
from ratchet.events.catalogue import (
    CheckpointBroken,
    CheckpointEvaluated,
    CheckpointSaved,
    EvaluationRequested,
)
from ratchet.inference.generator import Decoding
from ratchet.inference.prompt_format import day_of
from ratchet.ledger import Transaction
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.suites import (
    ALWAYS_TESTED,
    current,
    evaluation,
    request_on_current,
    unanswered_requests,
    undecided,
)
from ratchet.ledger.tables import (
    CheckpointRow,
    EvaluationRequestRow,
    EvaluationRow,
    SuiteRow,
    VerdictRow,
)
from ratchet.lines import read_lines
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.tasks.registry import grader_id
from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluator.preferences import judge_id
from evaluator.ranking import tally
from evaluator.votes import ask_judge, kept_result

NAME = "testing"

NOISE_POOL = "eval"
"""The pool whose suites the noise floor is measured on: confirm suites are looked at by the gate alone."""


def find(session: Session, _settings: Settings) -> list[Subject]:
    """Requests first, since decisions wait for them; then untested checkpoints, the newest first."""
    requests = session.scalars(unanswered_requests().order_by(EvaluationRequestRow.created_at.desc()))
    untested = select(CheckpointRow.id).where(
        CheckpointRow.state == "saved", lacks_verdict(NAME, "checkpoint", CheckpointRow.id)
    )
    newest_first = session.scalars(untested.order_by(CheckpointRow.ordinal.desc()))
    return [
        *(Subject("request", _name(request)) for request in requests),
        *(Subject("checkpoint", id) for id in newest_first),
    ]


def _name(request: EvaluationRequestRow) -> str:
    """Checkpoint, suite, and the time of the request in ms: a record may be requested again."""
    return f"{request.checkpoint_id}/{request.suite_id}/{request.created_at * 1000:.0f}"


@dataclass(frozen=True)
class Assignment:
    """One checkpoint and the suites to run it on."""

    checkpoint: CheckpointRow
    suites: Sequence[SuiteRow]
    overtaken_by: str | None
    parent_degenerate: bool


def do(work: Work) -> Outcome:
    """Run the subject's suites in a child and store the records."""
    assignment = _assignment(work)
    if not assignment.suites:
        return Verdict("evaluated", "its records exist already", {"degenerate": None})
    if assignment.overtaken_by is not None:
        shutil.rmtree(_answers(work, assignment.checkpoint.id), ignore_errors=True)
        return Verdict("superseded", f"{assignment.overtaken_by} is newer and has been tested already")
    spec = _spec(work, assignment)
    result = kept_result(spec) or _answered(work, spec)
    waiting = ask_judge(work, spec, result) if result.broken is None else None
    if waiting is not None:
        return waiting
    verdict = _broken(assignment.checkpoint.id, result) if result.broken else _evaluated(work, assignment, result)
    shutil.rmtree(_answers(work, assignment.checkpoint.id), ignore_errors=True)
    return verdict


def _answered(work: Work, spec: TestingSpec) -> TestingResult:
    answer = work.child(
        "ratchet.evaluation.answer_suites:run_suites",
        spec.model_dump(mode="json"),
        lambda message: work.pulse.beat(f"{work.subject.id.partition('/')[0]} {_note(message)}"),
    )
    return TestingResult.model_validate(answer)


def _note(message: Mapping[str, Any]) -> str:
    """What a child's message says: how much of a suite is answered, or that a batch is under way."""
    return f"{message['suite']} {message['done']}/{message['total']}" if "suite" in message else str(message["note"])


def _assignment(work: Work) -> Assignment:
    checkpoint_id, _, request = work.subject.id.partition("/")
    suite_id = request.partition("/")[0]
    with work.read() as session:
        checkpoint = session.get_one(CheckpointRow, checkpoint_id)
        if suite_id:
            return Assignment(
                checkpoint, _unanswered(session, checkpoint, [session.get_one(SuiteRow, suite_id)]), None, True
            )
        suites = _unanswered(session, checkpoint, [current(session, pool) for pool in ALWAYS_TESTED])
        newer = select(CheckpointRow.id).join(EvaluationRow, EvaluationRow.checkpoint_id == CheckpointRow.id)
        newer = newer.where(CheckpointRow.ordinal > checkpoint.ordinal)
        overtaken = session.scalar(newer.limit(1))
        parent = session.get(CheckpointRow, checkpoint.parent_id) if checkpoint.parent_id else None
        is_tested = parent is not None and _verdict(session, parent.id) is not None
        is_parent_degenerate = not is_tested or (parent is not None and parent.degenerate is not None)
        return Assignment(checkpoint, suites, overtaken if checkpoint.ordinal else None, is_parent_degenerate)


def _unanswered(session: Session, checkpoint: CheckpointRow, suites: list[SuiteRow]) -> list[SuiteRow]:
    """The suites that the checkpoint has no record of."""
    return [suite for suite in suites if evaluation(session, checkpoint.id, suite.id) is None]


def _verdict(session: Session, checkpoint_id: str) -> VerdictRow | None:
    query = select(VerdictRow).where(VerdictRow.system == NAME, VerdictRow.subject_id == checkpoint_id)
    return session.scalar(query)


def _spec(work: Work, assignment: Assignment) -> TestingSpec:
    settings, folder = work.settings, _answers(work, assignment.checkpoint.id)
    return TestingSpec(
        checkpoint=work.artifacts.fetch(assignment.checkpoint.artifact),
        weights=assignment.checkpoint.weights,
        suites=tuple(_suite_file(work, row) for row in assignment.suites),
        work_folder=folder / str(work.claim.token),
        earlier=tuple(sorted(folder.iterdir())) if folder.exists() else (),
        decoding=Decoding(max_new_tokens=settings.suites.max_new_tokens),
        inference=settings.inference,
        profile=settings.profile.name,
        profile_options=settings.profile.options,
        template_variables=settings.profile.template_variables,
        system_prompt=settings.monitoring.system_prompt_base,
        date=day_of(assignment.suites[0].created_at),
        parent_degenerate=assignment.parent_degenerate,
    )


def _answers(work: Work, checkpoint_id: str) -> Path:
    """Folder of the answers so far, one for each claim: the next one continues with those of a killed worker."""
    return work.settings.work_folder / "answers" / checkpoint_id


def _suite_file(work: Work, row: SuiteRow) -> SuiteFile:
    families = [family.name for family in work.settings.suites.families]
    path = work.artifacts.fetch(row.artifact) / "rows.jsonl"
    grader = grader_id(families)
    if any(item.metadata.get("metric") == "judge" for item in read_suite(path).values()):
        grader = f"{grader}, {judge_id(work.settings.judge)}"
    known = tuple(NoiseFloor.model_validate(noise).conditions for noise in (row.noise or {}).values())
    return SuiteFile(
        name=row.pool,
        version=row.id,
        grader=grader,
        path=path,
        score_gold=row.pool in ALWAYS_TESTED,
        noise_known=known if row.pool == NOISE_POOL else None,
    )


def _broken(checkpoint_id: str, result: TestingResult) -> Verdict:
    reason = result.broken or ""

    def effects(tx: Transaction) -> None:
        row = tx.session.get_one(CheckpointRow, checkpoint_id)
        row.state, row.reason, row.degenerate = "broken", reason, result.degenerate

    return Verdict(
        "broken",
        reason,
        {"degenerate": result.degenerate},
        effects,
        (CheckpointBroken(checkpoint_id=checkpoint_id, reason=reason),),
    )


def _evaluated(work: Work, assignment: Assignment, result: TestingResult) -> Verdict:
    checkpoint = assignment.checkpoint
    suites = {row.pool: row for row in assignment.suites}
    made = [_row(work, checkpoint.id, suites[pool], outcome) for pool, outcome in result.suites.items()]
    rows = [row for row, _ in made]

    def effects(tx: Transaction) -> None:
        tx.session.get_one(CheckpointRow, checkpoint.id).degenerate = result.degenerate
        for row in rows:
            row.created_at = tx.now
            if tx.session.get(EvaluationRow, row.id) is None:
                tx.session.add(row)
        for pool, outcome in result.suites.items():
            _keep_noise(tx, suites[pool].id, outcome.noise)
        tx.session.flush()
        _keep_up(tx, assignment)

    told = {row.pool: _in_words(row, errors) for row, errors in made}
    return Verdict(
        "evaluated",
        "; ".join(f"{pool}: {words}" for pool, words in told.items()),
        {"results": told, "errors": {row.pool: errors for row, errors in made}, "degenerate": result.degenerate},
        effects,
        (CheckpointEvaluated(checkpoint_id=checkpoint.id, pools=tuple(told)),),
    )


def _keep_noise(tx: Transaction, suite_id: str, noise: NoiseFloor | None) -> None:
    """Add a noise floor to its suite, unless one under its conditions has been added meanwhile."""
    row = tx.session.get_one(SuiteRow, suite_id)
    if noise is not None:
        row.noise = {noise.under: noise.model_dump(), **(row.noise or {})}


def _keep_up(tx: Transaction, assignment: Assignment) -> None:
    """Request the records on the suites that have taken the place of those just answered. No judge looks at these."""
    answered = [tx.session.get_one(SuiteRow, suite.id) for suite in assignment.suites if suite.pool in ALWAYS_TESTED]
    is_outdated = any(suite.retired_at is not None for suite in answered)
    if is_outdated and assignment.checkpoint.id in undecided(tx.session):
        request_on_current(tx, assignment.checkpoint.id, NAME)


def _in_words(row: EvaluationRow, errors: Mapping[str, int]) -> str:
    """Such as ``12 of 40 right (wrong 20, extraction 8), notes 1.61 nats/token``."""
    graded = overall_rate(rates_from_json(row.by_level))
    classes = ", ".join(f"{name} {count}" for name, count in errors.items())
    told = [f"{graded.correct} of {graded.n} right{f' ({classes})' if classes else ''}"] if graded is not None else []
    return ", ".join([*told, *scores_in_words(row.scores)])


def _row(work: Work, checkpoint_id: str, suite: SuiteRow, outcome: SuiteResult) -> tuple[EvaluationRow, dict[str, int]]:
    """The ledger's row of a record, and how many wrong answers are of each error class."""
    if outcome.n == 0:
        raise EmptyEvaluation(f"{checkpoint_id} on {suite.pool} suite {suite.id}: no item was graded.")
    named = Path(work.folder) / f"{suite.pool}-record" / ITEMS
    named.parent.mkdir()
    items = records_from_lines(read_lines(outcome.items))
    grades = tally(Record(checkpoint_id=checkpoint_id, key=outcome.key, items=items))
    outcome.items.rename(named)
    provenance = {
        "checkpoint": checkpoint_id,
        "suite": suite.id,
        "pool": suite.pool,
        "key": outcome.key.model_dump(),
        "decoding": Decoding(max_new_tokens=work.settings.suites.max_new_tokens).model_dump(mode="json"),
        "profile": work.settings.profile.name,
    }
    artifact = work.artifacts.publish(named.parent, "record", provenance, consume=True)
    errors = Counter(item.error for item in items if item.error is not None)
    row = EvaluationRow(
        id=f"{checkpoint_id}/{suite.id}",
        checkpoint_id=checkpoint_id,
        suite_id=suite.id,
        pool=suite.pool,
        key=outcome.key.model_dump(),
        artifact=artifact.id,
        items=outcome.n,
        correct=outcome.correct,
        by_level=rates_to_json(level_rates(items)),
        scores={family: score.model_dump() for family, score in task_scores(items).items()},
        tokens_per_s=outcome.tokens_per_s,
        tally=grades.model_dump(mode="json"),
    )
    return row, dict(errors.most_common())


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Runs every new checkpoint once over the fixed suites and stores each item.",
    emits=(CheckpointEvaluated, CheckpointBroken),
    sweep_s=600.0,
    lanes=(Lane("test", (CheckpointSaved, EvaluationRequested), find, do),),
    vram_gb=10,
    preload=("torch", "transformers", "ratchet.evaluation.answer_suites", "ratchet.inference.local_generator"),
    order=2,
    per_checkpoint=True,
    pending="saved checkpoints",
)
