"""Kinds of `ratchet show` about checkpoints: leaderboard, history, previews, diff and calibration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import comb
from typing import Annotated, Any, NamedTuple

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.cli.context import artifacts, checkpoint_folder, find_checkpoint, label
from ratchet.cli.output import clock, duration, shortened
from ratchet.cli.show import AnyCheckpoint, Limit, Page, Reader, Table, kind
from ratchet.cli.view.reading import SHOWN_POOL, read_checkpoints, read_live
from ratchet.cli.view.view_model import CheckpointView, levels_line, plain, status_text, task
from ratchet.data.example import Example
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.load_evaluation import load_evaluation, load_suite
from ratchet.evaluation.paired_outcomes import OutcomeCounts, PairedScores, outcome_table, score_table, total_of
from ratchet.evaluation.preview import Preview
from ratchet.evaluation.record import Evaluation, ItemRecord, paired
from ratchet.ledger.deployments import HistoryEntry
from ratchet.ledger.deployments import history as history_of
from ratchet.ledger.live_training import live_training
from ratchet.ledger.suites import evaluation, suite_named
from ratchet.ledger.tables import CalibrationRow, CheckpointRow, EvaluationRow, RankingRow, SuiteRow
from ratchet.stats.proportions import wilson
from ratchet.tasks.graders import gold

Entry = Mapping[str, Any]
Family = Annotated[str | None, typer.Option(help="Only this family's items.")]
TIE = "best or tied"
WIDEST_CELL = 60
CONFIDENCE_KINDS = {
    "mean": "the geometric mean of its tokens",
    "sum": "the whole answer",
    "min": "its least certain token",
    "tail": "its least certain quarter",
}
STAGES = {"raw": "raw", "tempered": "temperature-scaled", "platt_scaled": "Platt", "isotonic": "isotonic"}


@kind
def leaderboard(reader: Reader, limit: Limit = 20, family: Family = None) -> Page:
    """Rank checkpoints by their scores on the eval suite.

    The score is the share of right answers; of a task measured by loss, each item counts as exp(-loss), and of a judged
    one as the judge's preference. The percentage and its 95 % range (Wilson) are of graded items. `tie` marks
    checkpoints that the paired comparison on the same items cannot distinguish from the best. It is empty where a
    checkpoint was not compared yet, or was evaluated under other conditions.
    """
    entries = newest_ranking(reader.session)
    if family is not None:
        return _family_leaderboard(_of_family(reader.session, entries, family)[:limit], family)
    live = read_live(reader.session)
    ranked = [
        _Ranked(view, entries.get(view.id, {}), status_text(view, live), checkpoint_folder(reader.settings, row))
        for row, view in _best(reader.session, limit)
    ]
    columns = {
        "": lambda r: f"#{r.view.ordinal}",
        ">step": lambda r: f"{r.view.step:,}",
        ">eval %": lambda r: f"{100 * r.view.overall.value:.1f}" if r.view.overall else "",
        "95 % range": lambda r: _range(*r.bounds) if r.bounds else "",
        "tie": lambda r: TIE if r.entry.get("is_tied_with_best") else "",
        ">items": lambda r: (r.view.overall.n if r.view.overall else 0) + sum(s.n for s in r.view.scores.values()),
        "by level": lambda r: levels_line(r.view),
        "saved": lambda r: clock(r.view.created_at),
        "status": lambda r: r.status,
    }
    empty = "no checkpoint has been evaluated on the current eval suite yet."
    note = f"files of #{ranked[0].view.ordinal}: {ranked[0].folder}" if ranked and ranked[0].folder else ""
    return Page([Table("checkpoints", ranked, columns, _Ranked.values)], note=note, empty=empty)


class _Ranked(NamedTuple):
    """A checkpoint with its entry of the newest ranking, which is empty where it was not compared, and the folder of
    its files, None once they are deleted."""

    view: CheckpointView
    entry: Entry
    status: str
    folder: str | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval of the rate of graded items, where there are any."""
        if self.view.overall is None:
            return None
        interval = wilson(self.view.overall.correct, self.view.overall.n)
        return interval.low, interval.high

    def values(self) -> dict[str, Any]:
        view, (low, high) = self.view, self.bounds or (None, None)
        return {
            "checkpoint_id": view.id,
            "ordinal": view.ordinal,
            "step": view.step,
            "correct": view.overall.correct if view.overall else None,
            "items": view.overall.n if view.overall else 0,
            "low": low,
            "high": high,
            "levels": {f"{name}/{level}": rate.model_dump() for (name, level), rate in view.levels.items()},
            "scores": {name: score.model_dump() for name, score in view.scores.items()},
            "score": self.entry.get("score"),
            "is_tied_with_best": self.entry.get("is_tied_with_best"),
            "cost": self.entry.get("cost"),
            "over_budget": self.entry.get("over_budget"),
            "status": self.status,
            "folder": self.folder,
            "created_at": view.created_at,
        }


def newest_ranking(session: Session) -> dict[str, Entry]:
    """The newest ranking's entries by checkpoint; empty before the first."""
    newest = session.scalar(select(RankingRow).order_by(RankingRow.id.desc()).limit(1))
    return {entry["checkpoint_id"]: entry for entry in newest.entries.get("entries", ())} if newest else {}


def _best(session: Session, limit: int) -> list[tuple[CheckpointRow, CheckpointView]]:
    """The best on the current eval suite, by the score of its tally; scores on earlier suites are not comparable."""
    query = select(CheckpointRow).join(EvaluationRow, EvaluationRow.checkpoint_id == CheckpointRow.id)
    query = query.join(SuiteRow, SuiteRow.id == EvaluationRow.suite_id)
    query = query.where(SuiteRow.pool == SHOWN_POOL, SuiteRow.retired_at.is_(None), EvaluationRow.items > 0)
    rate = EvaluationRow.correct * 1.0 / EvaluationRow.items
    score = func.coalesce(EvaluationRow.tally["score"].as_float(), rate)
    best_first = (score.desc(), CheckpointRow.ordinal.desc())
    rows = session.scalars(query.order_by(*best_first).limit(limit)).all()
    views = {view.id: view for view in read_checkpoints(session, rows)}
    return [(row, views[row.id]) for row in rows]


def _of_family(session: Session, entries: Mapping[str, Entry], family: str) -> list[dict[str, Any]]:
    """Ranks on one family's items, the best first."""
    known = sorted({name for entry in entries.values() for name in entry["by_family"]})
    if family not in known:
        raise PreconditionFailed(f"family {family!r} is not ranked; ranked are: {', '.join(known) or 'none yet'}.")
    rows = {row.id: row for row in session.scalars(select(CheckpointRow).where(CheckpointRow.id.in_(entries)))}
    ranked = sorted(entries.values(), key=lambda e: (e["by_family"][family]["rank"], -rows[e["checkpoint_id"]].ordinal))
    return [{"checkpoint": label(rows[entry["checkpoint_id"]]), **entry["by_family"][family]} for entry in ranked]


def _family_leaderboard(ranked: list[dict[str, Any]], family: str) -> Page:
    is_loss = bool(ranked) and ranked[0].get("metric") == "loss"

    def shown(value: float) -> str:
        return f"{value:.2f}" if is_loss else f"{100 * value:.1f}"

    columns = {
        ">rank": lambda r: r["rank"],
        "": lambda r: r["checkpoint"],
        f">{family} {'nats/token' if is_loss else '%'}": lambda r: shown(_mean(r)),
        "95 % range": lambda r: (
            f"{shown(r['interval']['low'])} to {shown(r['interval']['high'])}" if r["interval"] else ""
        ),
        "tie": lambda r: TIE if r["is_tied_with_best"] else "",
        ">items": lambda r: r["n"],
    }
    return Page([Table("checkpoints", ranked, columns)])


def _mean(entry: Entry) -> float:
    """The mean of a family; rankings of earlier versions have counts alone."""
    return float(entry["mean"]) if "mean" in entry else entry["correct"] / entry["n"]


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


@kind
def history(reader: Reader, limit: Limit = 30) -> Page:
    """List what was live, from when to when and why.

    Freezes, removed blocks and other operator actions are listed too.
    """
    now = time.time()
    columns = {
        "when": lambda e: clock(e.at),
        "act": lambda e: e.action,
        "by": lambda e: e.actor,
        "checkpoint": lambda e: f"#{e.ordinal}",
        "for": lambda e: _lasted(e, now),
        "why": lambda e: plain(e.reason),
    }
    entries = history_of(reader.session)[-limit:][::-1]
    return Page([Table("actions", entries, columns)], empty="nothing has been deployed yet.")


def _lasted(entry: HistoryEntry, now: float) -> str:
    if not entry.changes_champion:
        return ""
    return duration((entry.until_at or now) - entry.at) + ("" if entry.until_at else " so far")


@kind
def previews(reader: Reader, limit: Limit = 12) -> Page:
    """List answers of the model in training, the newest last.

    At intervals the model answers a few rows of its training file, and the answers are graded. They are only for
    information: no decision depends on them. Machines other than the trainer show the newest ten while training runs.
    """
    found = live_training(reader.session, reader.settings, limit).previews
    columns = {
        "at": lambda p: clock(p.at),
        ">step": lambda p: f"{p.step:,}",
        "by": lambda p: p.backend,
        "task": task,
        "question": lambda p: shortened(p.question, 40),
        "gold": lambda p: shortened(p.gold, 40),
        "answer": lambda p: shortened(p.answer, 40),
        "": lambda p: "" if p.correct is None else "right" if p.correct else p.error or "wrong",
    }
    monitoring = reader.settings.monitoring
    empty = (
        f"no previews yet: the first comes after monitoring.preview_interval = {monitoring.preview_interval} steps of "
        f"training, from {monitoring.preview_backend!r}."
    )
    return Page([Table("previews", found, columns, Preview.model_dump)], empty=empty)


class PairedItem(NamedTuple):
    """An item that one of two checkpoints answered right and the other wrong, or on which their scores differ."""

    item: Example
    before: ItemRecord
    after: ItemRecord

    @property
    def gain(self) -> float:
        """The later score minus the earlier one; 0 where one was not measured."""
        before, after = self.before.score, self.after.score
        return 0.0 if before is None or after is None else after - before

    @property
    def text(self) -> str:
        """``gained``, ``lost``, or the change of the loss in nats or of the preference."""
        if self.before.metric == "accuracy":
            return "gained" if self.after.correct else "lost"
        change = -self.gain if self.before.metric == "loss" else self.gain
        return f"{change:+.2f}" + (" nats" if self.before.metric == "loss" else "")

    def values(self) -> dict[str, Any]:
        return {
            "item_id": self.item.id,
            "gained": self.gain > 0,
            "metric": self.before.metric,
            "scores": [self.before.score, self.after.score],
            "family": self.before.family,
            "level": self.before.level,
            "question": self.item.question,
            "gold": gold(self.item),
            "before": self.before.answer,
            "after": self.after.answer,
            "extraction": [self.before.extraction, self.after.extraction],
        }


@kind
def diff(
    reader: Reader,
    earlier: AnyCheckpoint,
    later: AnyCheckpoint,
    suite: Annotated[str, typer.Option(help="eval, probe, or the beginning of a suite's id.")] = "eval",
    family: Family = None,
    limit: Limit = 20,
) -> Page:
    """List the items on which two checkpoints differ.

    Losses come first, then gains, with both answers; of a task that is not graded the items whose score has changed
    most, the worst first. Confirm suites are never shown: a test set loses its value when
    its items are known.
    """
    session, store = reader.session, artifacts(reader.settings)
    row = suite_named(session, suite)
    if row.pool == "confirm":
        raise PreconditionFailed("confirm suites are never shown: they decide on deployments.")
    pair = [find_checkpoint(session, name) for name in (earlier, later)]
    records = [_record(session, checkpoint, row) for checkpoint in pair]
    before, after = (_only_family(load_evaluation(store, record), family) for record in records)
    items = load_suite(store, row).by_id
    pairs = [PairedItem(items[one.item_id], one, two) for one, two in paired(before, after)]
    found = sorted(
        (pair for pair in pairs if pair.gain),
        key=lambda differing: (differing.gain, differing.before.family, differing.before.level),
    )
    table, scores = outcome_table(before, after), score_table(before, after)
    total = total_of(table)
    names = [label(checkpoint) for checkpoint in pair]
    columns = {
        "": lambda d: d.text,
        "family": lambda d: d.before.family,
        ">level": lambda d: d.before.level,
        "question": lambda d: shortened(d.item.question, WIDEST_CELL),
        "expected": lambda d: shortened(gold(d.item), WIDEST_CELL),
        names[0]: lambda d: shortened(d.before.answer, WIDEST_CELL),
        names[1]: lambda d: shortened(d.after.answer, WIDEST_CELL),
    }
    return Page(
        [Table("items", found[:limit], columns, PairedItem.values)],
        lead=" ".join(
            [
                *([_summary(names[0], names[1], row.pool, total)] if table else []),
                *(_score_summary(names[0], names[1], task) for task in scores),
            ]
        ),
        note=f"… and {len(found) - limit} more: --limit {len(found)}." if len(found) > limit else "",
        facts={
            "suite": row.id,
            **total.model_dump(),
            "tasks": [task.model_dump(exclude={"differences"}) for task in scores],
        },
    )


def _record(session: Session, checkpoint: CheckpointRow, suite: SuiteRow) -> EvaluationRow:
    record = evaluation(session, checkpoint.id, suite.id)
    if record is None:
        raise PreconditionFailed(
            f"{label(checkpoint)} has no record on that suite: `ratchet why {checkpoint.ordinal}` lists its records."
        )
    return record


def _only_family(record: Evaluation, family: str | None) -> Evaluation:
    if family is None:
        return record
    items = tuple(item for item in record.items if item.family == family)
    if not items:
        known = ", ".join(sorted({item.family for item in record.items}))
        raise PreconditionFailed(f"no item of {family!r}: the suite has {known}.")
    return record.model_copy(update={"items": items})


def sign_test(gains: int, losses: int) -> float:
    """Exact two-sided p-value of the split if gains and losses were equally likely (McNemar's test)."""
    differing, fewer = gains + losses, min(gains, losses)
    return min(1.0, 2.0 * sum(comb(differing, k) for k in range(fewer + 1)) / 2.0**differing)


def _summary(earlier: str, later: str, pool: str, total: OutcomeCounts) -> str:
    p = sign_test(total.gains, total.losses)
    chance = f"chance alone gives that once in {1 / p:,.0f} times" if p < 0.5 else "that may well be chance"
    return (
        f"{later} against {earlier} on {total.n} {pool} items: {total.gains} gained, {total.losses} lost, "
        f"{100 * total.effect:+.1f} points; {chance} (p = {p:.2g}, one comparison, not corrected)."
    )


def _score_summary(earlier: str, later: str, task: PairedScores) -> str:
    """The change of a task's mean, with the interval of the clipped differences."""
    from ratchet.stats.paired_scores import BOUNDS, mean_interval

    if not task.n:
        return f"{task.family}: no item has a score in both records."
    bound = BOUNDS[task.metric]
    interval = mean_interval(task.differences, bound)
    if task.metric == "loss":
        told = f"loss {task.before:.2f} → {task.after:.2f} nats/token"
        span = f"{-interval.high:+.2f} to {-interval.low:+.2f}"
    else:
        told = f"preferred {task.before:.0%} → {task.after:.0%}"
        span = f"{100 * interval.low:+.0f} to {100 * interval.high:+.0f} points"
    return (
        f"{task.family}, {later} against {earlier}: {told} on {task.n} items (95 % of the change {span}, differences "
        f"clipped at {bound:g})."
    )


@kind
def calibration(reader: Reader, checkpoint: AnyCheckpoint = "champion") -> Page:
    """Show how well a checkpoint's confidence is calibrated.

    Also shows the confidence above which its answers are accurate enough. All numbers are measured on the half of the
    eval items that was not used for fitting.
    """
    found = find_checkpoint(reader.session, checkpoint)
    row = reader.session.get(CalibrationRow, found.id)
    if row is None or "shipped" not in row.numbers:
        raise PreconditionFailed(
            f"{label(found)} has not been calibrated: `ratchet why {found.ordinal}` shows how far it is."
        )
    numbers = row.numbers
    if numbers["shipped"] is None:
        return Page([], lead=f"{label(found)} has no calibration: {numbers['reason']}.", facts=numbers)
    stages = [{"name": name, **numbers[stage]} for stage, name in STAGES.items()]
    levels = {
        "level": lambda level: f"{level['family']} {level['level']}",
        ">items": lambda level: level["n"],
        ">right": lambda level: f"{level['accuracy']:.0%}",
        ">stated": lambda level: f"{level['confidence']:.0%}",
        ">overconfident by": lambda level: f"{100 * (level['confidence'] - level['accuracy']):+.0f}",
    }
    return Page(
        [
            Table("stages", stages, {"confidence": lambda stage: stage["name"], **_STAGE_COLUMNS}),
            Table("levels", numbers["by_level"], levels),
        ],
        lead=_calibration_in_words(label(found), numbers),
        facts={"checkpoint_id": found.id, **numbers},
    )


_STAGE_COLUMNS = {
    heading: lambda stage, name=name: "–" if stage[name] is None else f"{stage[name]:.3f}"
    for heading, name in {
        ">ECE": "ece",
        ">equal mass": "ece_equal_mass",
        ">MCE": "mce",
        ">Brier": "brier",
        ">NLL": "nll",
        ">AUROC": "auroc",
    }.items()
}


def _calibration_in_words(name: str, numbers: Mapping[str, Any]) -> str:
    raw, tempered, shipped = numbers["raw"], numbers["tempered"], numbers["shipped"]
    excess = raw["confidence"] - raw["accuracy"]
    text = (
        f"{name} is right on {raw['accuracy']:.0%} of {raw['n']} items and states {raw['confidence']:.0%}: "
        f"{'overconfident' if excess > 0 else 'underconfident'} by {100 * abs(excess):.0f} points. "
        f"The best measure of its confidence is {CONFIDENCE_KINDS[numbers['kind']]}, at temperature "
        f"{numbers['temperature']:.2f}, which changes the expected "
        f"calibration error from {raw['ece']:.3f} to {tempered['ece']:.3f}."
    )
    found = numbers["abstention"]
    if found is None or found["precision"] is None:
        return f"{text} No confidence level gives {shipped['precision']:.0%} right answers."
    bounds = found["interval"]
    return (
        f"{text} Answers with a confidence of {found['threshold']:.2f} or more are {found['coverage']:.0%} of all, "
        f"and {found['precision']:.0%} of them are right ({bounds['low']:.0%} to {bounds['high']:.0%}; wanted "
        f"{found['wanted']:.0%})."
    )
