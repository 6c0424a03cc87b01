"""The LLM judge's votes on the answers of one test, asked for until they are complete.

A judge that is away, overloaded or over its daily budget is waited for: votes that are missing would make a record with
which nothing can be proved. Answers and votes so far are kept beside the answers of testing's child, so that neither
are made nor paid for twice. After ``LONGEST_WAIT_S`` the record is stored without the missing votes, and says why.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from ratchet.atomic_files import atomic_write
from ratchet.errors import TransientError
from ratchet.evaluation.answer_suites import SuiteResult, TestingResult, TestingSpec, read_suite
from ratchet.evaluation.record import ItemRecord, records_from_lines, records_to_lines
from ratchet.evaluation.record_log import RecordLog
from ratchet.ledger import Transaction
from ratchet.ledger.tables import SpendingRow
from ratchet.lines import read_lines
from ratchet.systems import NotReady, Work
from sqlalchemy import func, select

from evaluator.preferences import Awaited, Judge, judged

JUDGE = "judge"
"""Name of the LLM judge among what is spent on model servers."""

DAY_S = 86_400.0

LONGEST_WAIT_S: dict[Awaited, float] = {"server": DAY_S, "budget": 7 * DAY_S}
"""How long a record waits for votes. A budget is new every day, but a suite may need several."""

KEPT = "result.json"
_OF_ONE_RUN = {"work_folder", "earlier"}


def kept_result(spec: TestingSpec) -> TestingResult | None:
    """The result of an earlier run of the same spec that waited for votes, if its files are still there."""
    for folder in spec.earlier:
        try:
            kept = json.loads((folder / KEPT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        result = TestingResult.model_validate(kept["result"])
        if kept["spec"] == _lasting(spec) and all(suite.items.exists() for suite in result.suites.values()):
            return result
    return None


def _lasting(spec: TestingSpec) -> object:
    return spec.model_dump(mode="json", exclude=_OF_ONE_RUN)


def ask_judge(work: Work, spec: TestingSpec, result: TestingResult) -> NotReady | None:
    """Add the LLM judge's preferences to the items of metric judge, and record what they cost.

    Returns what to wait for where the budget of the day is spent. Raises TransientError where the judge does not
    answer.
    """
    suites = {suite.name: suite.path for suite in spec.suites}
    for pool, outcome in result.suites.items():
        waiting = _complete(work, spec, pool, outcome, suites[pool])
        if waiting is not None:
            kept = outcome.items.parent / KEPT
            if not kept.exists():
                told = {"spec": _lasting(spec), "result": result.model_dump(mode="json")}
                atomic_write(kept, json.dumps(told), durable=True)
            if isinstance(waiting, TransientError):
                raise waiting
            return waiting
    return None


def _complete(
    work: Work, spec: TestingSpec, pool: str, outcome: SuiteResult, suite: Path
) -> NotReady | TransientError | None:
    """Write the votes of a suite into its records; returns what to wait for where some are missing."""
    records = records_from_lines(read_lines(outcome.items))
    ids = [record.item_id for record in records if record.metric == "judge"]
    if not ids:
        return None
    folder = outcome.items.parent
    log = RecordLog(folder, f"{pool}-votes", outcome.key.model_dump(), ids, spec.earlier)
    unjudged = [record for record in records if record.metric == "judge" and record.item_id not in log]
    judge, voted = _judged(work, pool, unjudged, suite)
    awaited = judge.awaited
    if judge.is_mute and not len(log):  # as with a wrong key: the fault is not the items'
        awaited = {record.item_id: "server" for record in voted if record.no_vote is not None}
    waited_s = time.time() - (folder / KEPT).stat().st_mtime if (folder / KEPT).exists() else 0.0
    awaited = {id: what for id, what in awaited.items() if waited_s < LONGEST_WAIT_S[what]}
    log.append(record for record in voted if record.item_id not in awaited)
    if awaited:
        reason = next(record.no_vote or "" for record in voted if record.item_id in awaited)
        return _waiting(work, set(awaited.values()), f"{len(awaited)} of {len(ids)} items of the {pool} suite", reason)
    _, finished = log.finish()
    with_votes = {record.item_id: record for record in finished}
    lines = records_to_lines(with_votes.get(record.item_id, record) for record in records)
    atomic_write(outcome.items, lines, durable=True)
    return None


def _waiting(work: Work, what: set[Awaited], items: str, reason: str) -> NotReady | TransientError:
    if "server" not in what:
        return NotReady(f"the judge's budget of tomorrow (judge.daily_tokens), for votes on {items}")
    return TransientError(
        f"there are no votes of the judge at {work.settings.judge.url} on {items}: {reason}. Check the server and the "
        f"[judge] settings; after {LONGEST_WAIT_S['server'] / 3600:.0f} h testing goes on without these votes."
    )


def _judged(work: Work, pool: str, records: Sequence[ItemRecord], suite: Path) -> tuple[Judge, tuple[ItemRecord, ...]]:
    def note(done: int, total: int) -> None:
        work.pulse.beat(f"{work.subject.id} judge {pool} {done}/{total}")

    judge = Judge(work.settings.judge, work.settings.inference, _left_today(work))
    try:
        return judge, judged(records, read_suite(suite), judge, note)
    finally:
        judge.close()
        _record_spending(work, judge)


def _left_today(work: Work) -> int | None:
    """Tokens of the judge's daily budget that were not spent in the last 24 hours; None without a budget."""
    budget = work.settings.judge.daily_tokens
    if budget is None:
        return None
    spent = select(func.sum(SpendingRow.prompt_tokens + SpendingRow.answer_tokens)).where(
        SpendingRow.generator == JUDGE, SpendingRow.created_at >= time.time() - DAY_S
    )
    with work.read() as session:
        return max(0, budget - int(session.scalar(spent) or 0))


def _record_spending(work: Work, judge: Judge) -> None:
    def effects(tx: Transaction) -> None:
        tx.session.add(
            SpendingRow(
                generator=JUDGE,
                refill=work.subject.id,
                requests=judge.requests,
                prompt_tokens=judge.prompt_tokens,
                answer_tokens=judge.answer_tokens,
                created_at=tx.now,
            )
        )

    if judge.requests:
        work.commit(effects)
