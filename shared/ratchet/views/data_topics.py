"""Topics about data: the curriculum, what was generated, and the suites.

What batches cover is in ``coverage``, what was mined and corrected in ``mining_topics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from ratchet.ledger.tables import CheckpointRow, CurriculumRow, EvaluationRow, SuiteRow, TrialRow, VerdictRow
from ratchet.views.topics import Reader, Table, Topic
from ratchet.wording import clock, counted, when

EXPERIMENT_STATES = {
    "off": "there is only one arm, so nothing is compared",
    "waiting": "no level is mastered yet, so nothing is compared yet",
    "open": "the experiment is open",
    "decided": "the experiment is decided",
    "even": "the experiment has ended: some arms do not differ",
}


class Trial(NamedTuple):
    """A trial, with the numbers of the checkpoints before and after."""

    row: TrialRow
    start: int
    end: int

    @property
    def points(self) -> float:
        """Points of the probe suite per 100,000 tokens."""
        return 100 * (self.row.gains - self.row.losses) / self.row.items * 100_000 / self.row.tokens

    def values(self) -> dict[str, Any]:
        return {
            "from": self.start,
            "to": self.end,
            "arm": self.row.arm,
            "tokens": self.row.tokens,
            "items": self.row.items,
            "gains": self.row.gains,
            "losses": self.row.losses,
            "points": self.points,
            "batches": self.row.through["batches"],
        }


def curriculum(reader: Reader, limit: int = 10) -> Topic:
    """Show the mix of the next batches, and which arm improves the model most.

    Batches are assigned to the arms at random, by the shares shown. A trial is the paired gain on the probe suite after
    one arm's batches. A range holds the arm's gain with 95 % probability; `best` is the probability that no arm is
    better.
    """
    row = reader.session.scalar(select(CurriculumRow).order_by(CurriculumRow.id.desc()).limit(1))
    if row is None:
        waits = "there is no curriculum yet: it needs an evaluated checkpoint."
        return Topic([], empty=waits, json_fields={"curriculum_id": None, "trials": 0})
    known = {(level["family"], level["level"]): level for level in row.mastery.get("levels", ())}
    mix = {
        "level": lambda share: f"{share['family']} {share['level']}",
        ">mix %": lambda share: f"{100 * share['weight']:.0f}",
        ">probe": lambda share: _rate(known.get((share["family"], share["level"]))),
        "why": lambda share: share["reason"],
    }
    arms = {
        "arm": lambda arm: arm["name"],
        ">share %": lambda arm: f"{100 * arm['share']:.0f}",
        ">trials": lambda arm: arm["trials"],
        ">points per 100k tokens": lambda arm: f"{arm['points']:+.2f}",
        "95 % range": lambda arm: f"{arm['low']:+.2f} to {arm['high']:+.2f}",
        ">best": lambda arm: f"{arm['best']:.2f}",
    }
    trials = {
        "trial": lambda t: f"#{t.start} to #{t.end}",
        "arm": lambda t: t.row.arm,
        ">tokens": lambda t: f"{t.row.tokens:,}",
        ">won": lambda t: t.row.gains,
        ">lost": lambda t: t.row.losses,
        ">items": lambda t: t.row.items,
        ">points per 100k": lambda t: f"{t.points:+.2f}",
    }
    experiment = row.experiment
    number = reader.session.scalar(select(func.count()).select_from(TrialRow)) or 0
    state = EXPERIMENT_STATES.get(experiment.get("state", ""), "none")
    title = f"Mix of the {row.mix.get('strategy')} arm, since {clock(row.created_at)}"
    return Topic(
        [
            Table("shares", row.mix.get("shares", ()), mix, title=title),
            Table("arms", experiment.get("arms", ()), arms, title=f"Experiment: {state}"),
            Table("newest_trials", _trials(reader, limit), trials, Trial.values, "Newest trials"),
        ],
        note="\n".join(f"{sentence}." for sentence in experiment.get("report", ())) if number else "",
        json_fields={
            "curriculum_id": row.id,
            "created_at": row.created_at,
            "mix": row.mix,
            "mastery": row.mastery,
            "mixes": row.mixes,
            "experiment": experiment,
            "trials": number,
        },
    )


def _trials(reader: Reader, limit: int) -> list[Trial]:
    before, after = aliased(CheckpointRow), aliased(CheckpointRow)
    query = select(TrialRow, before.ordinal, after.ordinal)
    query = query.join(before, before.id == TrialRow.before_id).join(after, after.id == TrialRow.checkpoint_id)
    return [Trial(*row) for row in reader.session.execute(query.order_by(after.ordinal.desc()).limit(limit))]


def _rate(level: Mapping[str, Any] | None) -> str:
    if level is None:
        return ""
    return f"{level['correct']} of {level['n']}" + (" mastered" if level["is_mastered"] else "")


def generation(reader: Reader, limit: int = 20) -> Topic:
    """List what was generated, the newest first.

    Each row has the generator, the arm, the speed, the rejected examples and the cost.
    """
    query = select(VerdictRow).where(VerdictRow.system == "generation").order_by(VerdictRow.id.desc()).limit(limit)
    columns = {
        "refill": _refill_name,
        "at": lambda row: when(row.created_at),
        "generator": lambda row: row.numbers.get("generator"),
        "arm": lambda row: row.numbers.get("assignment", {}).get("arm"),
        ">examples": lambda row: f"{_examples(row):,}",
        ">examples/s": lambda row: f"{_examples(row) / took_s:,.0f}" if (took_s := row.numbers.get("took_s")) else "",
        "refused": lambda row: counted(row.numbers.get("refused", {})),
        "cost": lambda row: counted(row.numbers.get("cost", {})),
    }
    refills = reader.session.scalars(query).all()
    return Topic([Table("refills", refills, columns, _refill_values)], empty="nothing has been generated yet.")


def _refill_name(row: VerdictRow) -> str:
    """The number of a refill of families; of other work for users' tasks with its kind."""
    return row.subject_id if row.subject_kind == "refill" else f"{row.subject_kind} {row.subject_id}"


def _examples(row: VerdictRow) -> int:
    return sum(row.numbers.get("made", {}).values())


def _refill_values(row: VerdictRow) -> dict[str, Any]:
    number = int(row.subject_id) if row.subject_kind == "refill" else row.subject_id
    named = {"refill": number, "kind": row.subject_kind, "outcome": row.outcome}
    return {**named, "created_at": row.created_at, **row.numbers}


def suites(reader: Reader) -> Topic:
    """List the current suites and the retired ones."""
    records = dict(
        reader.session.execute(select(EvaluationRow.suite_id, func.count()).group_by(EvaluationRow.suite_id)).all()
    )

    def values(row: SuiteRow) -> dict[str, Any]:
        return {
            "suite": row.id[:12],
            "pool": row.pool,
            "version": row.ordinal,
            "items": row.items,
            "records": records.get(row.id, 0),
            "challenges": row.uses,
            "created_at": row.created_at,
            "retired_at": row.retired_at,
        }

    columns = {
        "suite": lambda row: row.id[:12],
        "pool": lambda row: row.pool,
        ">version": lambda row: row.ordinal,
        ">items": lambda row: row.items,
        ">records": lambda row: records.get(row.id, 0),
        ">challenges": lambda row: row.uses,
        "made": lambda row: when(row.created_at),
        "retired": lambda row: when(row.retired_at),
    }
    rows = reader.session.scalars(select(SuiteRow).order_by(SuiteRow.created_at)).all()
    return Topic([Table("suites", rows, columns, values)], empty="there are no suites yet: the first run builds them.")
