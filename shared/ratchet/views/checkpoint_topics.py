"""Topics about checkpoints: leaderboard, history, previews and calibration. Two are compared in ``comparison``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.evaluation.preview import Preview
from ratchet.ledger.deployments import HistoryEntry
from ratchet.ledger.deployments import history as history_of
from ratchet.ledger.live_training import live_training
from ratchet.ledger.tables import CalibrationRow, CheckpointRow, EvaluationRow, RankingRow, SuiteRow
from ratchet.stats.proportions import wilson
from ratchet.views.checkpoint_names import checkpoint_folder, find_checkpoint, label
from ratchet.views.reading import SHOWN_POOL, read_checkpoints, read_live
from ratchet.views.topics import Reader, Table, Topic
from ratchet.views.view_model import CheckpointView, levels_line, plain, status_text, task
from ratchet.wording import duration, shortened, when

Entry = Mapping[str, Any]
TIE = "best or tied"
CONFIDENCE_KINDS = {
    "mean": "the geometric mean of its tokens",
    "sum": "the whole answer",
    "min": "its least certain token",
    "tail": "its least certain quarter",
}
STAGES = {"raw": "raw", "tempered": "temperature-scaled", "platt_scaled": "Platt", "isotonic": "isotonic"}


def leaderboard(reader: Reader, limit: int = 20, family: str | None = None) -> Topic:
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
        "saved": lambda r: when(r.view.created_at),
        "status": lambda r: r.status,
    }
    empty = "no checkpoint has been evaluated on the current eval suite yet."
    note = f"files of #{ranked[0].view.ordinal}: {ranked[0].folder}" if ranked and ranked[0].folder else ""
    return Topic([Table("checkpoints", ranked, columns, _Ranked.values)], note=note, empty=empty)


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


def _family_leaderboard(ranked: list[dict[str, Any]], family: str) -> Topic:
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
    return Topic([Table("checkpoints", ranked, columns)])


def _mean(entry: Entry) -> float:
    """The mean of a family; rankings of earlier versions have counts alone."""
    return float(entry["mean"]) if "mean" in entry else entry["correct"] / entry["n"]


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def history(reader: Reader, limit: int = 30) -> Topic:
    """List what was live, from when to when and why.

    Freezes, removed blocks and other operator actions are listed too.
    """
    now = time.time()
    columns = {
        "when": lambda e: when(e.at),
        "act": lambda e: e.action,
        "by": lambda e: e.actor,
        "checkpoint": lambda e: f"#{e.ordinal}",
        "for": lambda e: _lasted(e, now),
        "why": lambda e: plain(e.reason),
    }
    entries = history_of(reader.session)[-limit:][::-1]
    return Topic([Table("actions", entries, columns)], empty="nothing has been deployed yet.")


def _lasted(entry: HistoryEntry, now: float) -> str:
    if not entry.changes_champion:
        return ""
    return duration((entry.until_at or now) - entry.at) + ("" if entry.until_at else " so far")


def previews(reader: Reader, limit: int = 12) -> Topic:
    """List answers of the model in training, the newest last.

    At intervals the model answers a few rows of its training file, and the answers are graded. They are only for
    information: no decision depends on them. Machines other than the trainer show the newest ten while training runs.
    """
    found = live_training(reader.session, reader.settings, limit).previews
    columns = {
        "at": lambda p: when(p.at),
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
    return Topic([Table("previews", found, columns, Preview.model_dump)], empty=empty)


def calibration(reader: Reader, checkpoint: str = "champion") -> Topic:
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
        return Topic([], lead=f"{label(found)} has no calibration: {numbers['reason']}.", json_fields=numbers)
    stages = [{"name": name, **numbers[stage]} for stage, name in STAGES.items()]
    levels = {
        "level": lambda level: f"{level['family']} {level['level']}",
        ">items": lambda level: level["n"],
        ">right": lambda level: f"{level['accuracy']:.0%}",
        ">stated": lambda level: f"{level['confidence']:.0%}",
        ">overconfident by": lambda level: f"{100 * (level['confidence'] - level['accuracy']):+.0f}",
    }
    return Topic(
        [
            Table("stages", stages, {"confidence": lambda stage: stage["name"], **_STAGE_COLUMNS}),
            Table("levels", numbers["by_level"], levels),
        ],
        lead=_calibration_in_words(label(found), numbers),
        json_fields={"checkpoint_id": found.id, **numbers},
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
