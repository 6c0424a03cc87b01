"""Adversarial mining: what a checkpoint is weak on, in its probe record, in fresh problems near its frontier, and in
the training rows of users' tasks."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass

from ratchet.errors import ArtifactError
from ratchet.evaluation.build_suites import held_out
from ratchet.evaluation.load_evaluation import load_if_intact, load_suite
from ratchet.evaluation.record import RecordKey, rates_from_json
from ratchet.evaluation.suite import POOLS
from ratchet.events.catalogue import CheckpointEvaluated, ExamplesMined
from ratchet.inference.prompt_format import PromptFormat
from ratchet.ledger import Transaction
from ratchet.ledger.lineage import newest_evaluated
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import CheckpointRow, DeploymentRow, EvaluationRow, MinedRow, SuiteRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.evaluated_checkpoints import evaluated_without, request_again
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from miner.mined_items import (
    FollowUp,
    GradedAnswer,
    MinedItem,
    chosen,
    control_items,
    counts,
    follow_up,
    frontier_cells,
    graded_answers,
    mine,
    read_mined,
    retest_sample,
    within_reach,
)
from miner.model_children import ExcludedKeys, MiningResult, MiningSpec, ModelSpec
from miner.task_rows import sampled_rows

log = logging.getLogger(__name__)

NAME = "mining"
CHILD = "miner.model_children:mine_checkpoint"
CHAMPIONS = 5
"""Earlier champions whose right answers make an item forgotten."""

REMEMBERED_SETS = 10
"""Earlier sets whose items are not asked again, so that a search finds new ones."""

SET_ITEMS = 150
"""Most weak items of a set: one correction batch uses no more of them."""

RETEST_ITEMS = 100
"""Items of the set before, and random ones beside them, that are asked again: differences of 14 points show."""


@dataclass(frozen=True)
class EarlierSets:
    """Earlier sets: the newest one with its items, how often each key was mined, and the yields of the last search."""

    newest: str | None
    items: list[MinedItem]
    times: Counter[str]
    yields: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """A checkpoint to mine, with its probe record and those of earlier champions."""

    checkpoint: CheckpointRow
    record: EvaluationRow
    suite: SuiteRow
    champions: list[EvaluationRow]
    newer: str | None


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "probe")


def do(work: Work) -> Outcome:
    """Mine the newest checkpoint: an older one is superseded, and its weak items may be right by now."""
    with work.read() as session:
        case = _case(session, work.subject.id)
        earlier_rows = _earlier_rows(session)
        texts = [load_suite(work.artifacts, current(session, pool)).keys for pool in POOLS]
    if case.newer is not None:
        return Verdict("superseded", f"{case.newer} is newer")
    record = load_if_intact(work.artifacts, case.record)
    if record is None:
        return request_again(case.record, NAME)
    before = _earlier_sets(work, earlier_rows)
    prompt_format = PromptFormat.configured(work.settings, case.suite.created_at)
    answers = graded_answers(load_suite(work.artifacts, case.suite), record, prompt_format)
    rates = {cell: rate.value for cell, rate in rates_from_json(case.record.by_level).items()}
    found = mine(answers, before.times, _once_right(work, case))
    spec = _spec(work, case, before, answers, frontier_cells(rates), [key for keys in texts for key in keys])
    again = retest_sample(before.items, RETEST_ITEMS if spec.budget else 0, spec.seed)
    spec = spec.model_copy(
        update={
            "retest": tuple(item.example for item in again),
            "control": tuple(control_items(again, ExcludedKeys(spec.held_out, spec.known), spec.seed)),
            "rows": tuple(sampled_rows(work, _rows_budget(spec), spec.known, spec.seed)),
        }
    )
    result = _searched(work, spec)
    rows = [
        item.model_copy(update={"weakness": item.weakness / (1 + before.times[item.key])}) for item in result.weak_rows
    ]
    reached = within_reach([*found, *result.found, *rows], rates)
    retest = follow_up(before.newest or "", again, result.retest, result.control)
    return _mined(work, chosen(reached, SET_ITEMS), result, retest, len(spec.rows))


def _case(session: Session, checkpoint_id: str) -> Case:
    checkpoint = session.get_one(CheckpointRow, checkpoint_id)
    suite = current(session, "probe")
    record = evaluation(session, checkpoint_id, suite.id)
    newest = newest_evaluated(session, "probe")
    assert record is not None, "found by its record"
    deployed = select(DeploymentRow.checkpoint_id)
    query = select(EvaluationRow).join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    query = query.where(
        EvaluationRow.suite_id == suite.id,
        CheckpointRow.ordinal < checkpoint.ordinal,
        or_(CheckpointRow.id.in_(deployed), CheckpointRow.ordinal == 0),
    )
    champions = list(session.scalars(query.order_by(CheckpointRow.ordinal.desc()).limit(CHAMPIONS)))
    newer = newest.id if newest is not None and newest.id != checkpoint_id else None
    return Case(checkpoint, record, suite, champions, newer)


def _earlier_rows(session: Session) -> list[MinedRow]:
    query = select(MinedRow).where(MinedRow.artifact.is_not(None)).order_by(MinedRow.created_at.desc())
    return list(session.scalars(query.limit(REMEMBERED_SETS)))


def _earlier_sets(work: Work, rows: list[MinedRow]) -> EarlierSets:
    sets = [_remembered(work, row) for row in rows]
    yields = rows[0].numbers.get("yields", {}) if rows else {}
    return EarlierSets(
        rows[0].checkpoint_id if rows else None,
        sets[0] if sets else [],
        Counter(item.key for items in sets for item in items),
        {arm: (int(weak), int(asked)) for arm, (weak, asked) in yields.items()},
    )


def _remembered(work: Work, row: MinedRow) -> list[MinedItem]:
    """The items of an earlier set; empty if it cannot be read, since the next set does not depend on it."""
    try:
        return read_mined(work.artifacts, str(row.artifact))
    except ArtifactError as error:
        log.error("the mined set of %s cannot be read: %s", row.checkpoint_id, error)
        return []


def _once_right(work: Work, case: Case) -> set[str]:
    """Keys of the items that an earlier champion answered right, under the conditions of this record."""
    conditions = RecordKey.model_validate(case.record.key).conditions()
    alike = (row for row in case.champions if RecordKey.model_validate(row.key).conditions() == conditions)
    records = (load_if_intact(work.artifacts, row) for row in alike)
    return {item.key for record in records if record is not None for item in record.items if item.correct}


def _spec(
    work: Work,
    case: Case,
    before: EarlierSets,
    answers: list[GradedAnswer],
    cells: list[tuple[str, int]],
    text_keys: list[str],
) -> MiningSpec:
    digest = hashlib.sha256(case.checkpoint.id.encode()).digest()
    checkpoint = work.artifacts.fetch(case.checkpoint.artifact)
    return MiningSpec(
        model=ModelSpec.configured(
            work.settings, checkpoint, case.checkpoint.weights, case.suite.created_at, work.folder
        ),
        cells=tuple(cells),
        answered=tuple(answer for answer in answers if answer.cell in cells),
        held_out=held_out(work.settings.suites).with_keys(text_keys),
        known=frozenset(before.times),
        before=before.yields,
        budget=work.settings.mining.search_items,
        seed=int.from_bytes(digest[:4], "big"),
    )


def _rows_budget(spec: MiningSpec) -> int:
    """Training rows to ask: as many as the search may ask where it has nothing to search, else half as many more."""
    return spec.budget // 2 if spec.cells else spec.budget


def _searched(work: Work, spec: MiningSpec) -> MiningResult:
    """The child's result; no model is loaded if there is nothing to ask or the budget is 0."""
    if not spec.budget or not (spec.cells or spec.retest or spec.rows):
        return MiningResult()
    return MiningResult.model_validate(work.child(CHILD, spec.model_dump(mode="json")))


def _mined(
    work: Work, items: list[MinedItem], result: MiningResult, retest: FollowUp | None, rows_asked: int
) -> Verdict:
    artifact = None
    if items:
        lines = (item.model_dump_json() for item in items)
        artifact = work.artifacts.publish_lines(lines, "batch", {"mined_from": work.subject.id}).id
    by_category = counts(items)
    numbers = {
        "by_category": by_category,
        "by_origin": dict(Counter(item.found_by for item in items)),
        "yields": result.yields,
        "asked": sum(asked for _, asked in result.yields.values()),
        "rows_asked": rows_asked,
        "follow_up": retest.model_dump(mode="json") if retest else None,
    }

    def effects(tx: Transaction) -> None:
        tx.session.add(
            MinedRow(
                checkpoint_id=work.subject.id,
                artifact=artifact,
                count=len(items),
                by_category=by_category,
                numbers=numbers,
                created_at=tx.now,
            )
        )

    if not items:
        return Verdict(
            "nothing mined",
            "no weak item near the frontier or among the training rows" + _words(retest),
            numbers,
            effects,
        )
    words = ", ".join(f"{count} {category}" for category, count in sorted(by_category.items()))
    event = ExamplesMined(checkpoint_id=work.subject.id, count=len(items))
    return Verdict("mined", words + _words(retest), numbers, effects, (event,))


def _words(retest: FollowUp | None) -> str:
    if retest is None:
        return ""
    mined, random = retest.mined_failed / retest.mined, retest.random_failed / retest.random
    return f"; of the set before {mined:.0%} are still failed, of random items {random:.0%}"


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Finds what the newest checkpoint gets wrong, or right by luck, on the probe and on fresh problems.",
    emits=(ExamplesMined,),
    sweep_s=300.0,
    lanes=(Lane("mine", (CheckpointEvaluated,), find, do),),
    preload=("torch", "transformers", "miner.model_children", "ratchet.inference.local_generator"),
    order=6,
    per_checkpoint=True,
    pending="probe records",
)
