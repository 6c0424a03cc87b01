"""Kinds of `ratchet show` about data: curriculum, generation, coverage, mined, corrections and suites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from ratchet.cli.output import clock
from ratchet.cli.show import Limit, Page, Reader, Table, kind
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.tables import (
    BatchRow,
    CheckpointRow,
    CoverageRow,
    CurriculumRow,
    EvaluationRow,
    ImpactRow,
    MinedRow,
    SuiteRow,
    TrialRow,
    VerdictRow,
)

Numbers = Mapping[str, Any]
EXPERIMENT_STATES = {
    "off": "there is only one arm, so nothing is compared",
    "waiting": "no level is mastered yet, so nothing is compared yet",
    "open": "the experiment is open",
    "decided": "the experiment is decided",
    "even": "the experiment has ended: some arms do not differ",
}
IMPACT_FIELDS = (
    "batch_id",
    "checkpoint_id",
    "error_class",
    "baseline_id",
    "items",
    "before",
    "after",
    "gains",
    "losses",
    "low",
    "high",
)


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


@kind
def curriculum(reader: Reader, limit: Limit = 10) -> Page:
    """Show the mix of the next batches, and which arm improves the model most.

    Batches are assigned to the arms at random, by the shares shown. A trial is the paired gain on the probe suite after
    one arm's batches. A range holds the arm's gain with 95 % probability; `best` is the probability that no arm is
    better.
    """
    row = reader.session.scalar(select(CurriculumRow).order_by(CurriculumRow.id.desc()).limit(1))
    if row is None:
        waits = "there is no curriculum yet: it needs an evaluated checkpoint."
        return Page([], empty=waits, facts={"curriculum_id": None, "trials": 0})
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
    return Page(
        [
            Table("shares", row.mix.get("shares", ()), mix, title=title),
            Table("arms", experiment.get("arms", ()), arms, title=f"Experiment: {state}"),
            Table("newest_trials", _trials(reader, limit), trials, Trial.values, "Newest trials"),
        ],
        note="\n".join(f"{sentence}." for sentence in experiment.get("report", ())) if number else "",
        facts={
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


def _rate(level: Numbers | None) -> str:
    if level is None:
        return ""
    return f"{level['correct']} of {level['n']}" + (" mastered" if level["is_mastered"] else "")


@kind
def generation(reader: Reader, limit: Limit = 20) -> Page:
    """List what was generated, the newest first.

    Each row has the generator, the arm, the speed, the rejected examples and the cost.
    """
    query = select(VerdictRow).where(VerdictRow.system == "generation").order_by(VerdictRow.id.desc()).limit(limit)
    columns = {
        "refill": _refill_name,
        "at": lambda row: clock(row.created_at),
        "generator": lambda row: row.numbers.get("generator"),
        "arm": lambda row: row.numbers.get("assignment", {}).get("arm"),
        ">examples": lambda row: f"{_examples(row):,}",
        ">examples/s": lambda row: f"{_examples(row) / took_s:,.0f}" if (took_s := row.numbers.get("took_s")) else "",
        "refused": lambda row: _counts(row.numbers.get("refused", {})),
        "cost": lambda row: _counts(row.numbers.get("cost", {})),
    }
    refills = reader.session.scalars(query).all()
    return Page([Table("refills", refills, columns, _refill_values)], empty="nothing has been generated yet.")


def _refill_name(row: VerdictRow) -> str:
    """The number of a refill of families; of other work for users' tasks with its kind."""
    return row.subject_id if row.subject_kind == "refill" else f"{row.subject_kind} {row.subject_id}"


def _examples(row: VerdictRow) -> int:
    return sum(row.numbers.get("made", {}).values())


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _refill_values(row: VerdictRow) -> dict[str, Any]:
    number = int(row.subject_id) if row.subject_kind == "refill" else row.subject_id
    named = {"refill": number, "kind": row.subject_kind, "outcome": row.outcome}
    return {**named, "created_at": row.created_at, **row.numbers}


class Covered(NamedTuple):
    """What a batch covers, and its origin."""

    row: CoverageRow
    origin: str

    @property
    def texts(self) -> Numbers:
        return self.row.numbers.get("texts") or {}

    @property
    def near(self) -> str:
        texts = self.texts
        found = texts.get("repeats", 0) + texts.get("known", 0)
        return f"{found} of {texts['compared']}" if texts.get("compared") else ""

    @property
    def new_runs(self) -> str:
        runs = self.texts.get("runs", 0)
        return f"{100 * self.texts['new_runs'] / runs:.0f}" if runs else ""

    def values(self) -> dict[str, Any]:
        return {"batch_id": self.row.batch_id, "origin": self.origin, **self.row.numbers}


@kind
def coverage(reader: Reader, limit: Limit = 10) -> Page:
    """Show what the newest batches cover, and what is missing.

    `new` is the share of distinct items that no earlier batch had, `new runs` the same for runs of three words. Entropy
    is 1 if all levels have equally many rows. A gap is how far a level falls short of its share in the mix.
    """
    query = select(CoverageRow, BatchRow.origin).join(BatchRow, BatchRow.id == CoverageRow.batch_id)
    found = [
        Covered(*row) for row in reader.session.execute(query.order_by(CoverageRow.created_at.desc()).limit(limit))
    ]
    cells = {
        "level": lambda cell: f"{cell['family']} {cell['level']}",
        ">rows": lambda cell: cell["rows"],
        ">share %": lambda cell: f"{100 * cell['share']:.1f}",
        ">wanted %": lambda cell: f"{100 * cell['wanted']:.1f}",
        ">gap %": lambda cell: f"{100 * cell['gap']:.0f}" if cell["gap"] else "",
        "features, % of the rows": _features,
        "absent": lambda cell: ", ".join(cell.get("absent", ())),
    }
    batches = {
        "batch": lambda c: c.row.batch_id[:6],
        "of": lambda c: c.origin,
        ">rows": lambda c: f"{c.row.numbers.get('rows', 0):,}",
        ">new %": lambda c: f"{100 * c.row.numbers.get('novelty', 0.0):.0f}",
        ">duplicates": lambda c: f"{c.row.numbers.get('duplicates', 0):,}",
        ">near": lambda c: c.near,
        ">new runs %": lambda c: c.new_runs,
        ">entropy": lambda c: f"{c.row.numbers.get('entropy', 0.0):.2f}",
        ">features": lambda c: f"{c.row.numbers.get('feature_entropy', 0.0):.2f}",
        "at": lambda c: clock(c.row.created_at),
    }
    newest = found[0].row if found else None
    tables = [
        Table("cells", newest.numbers.get("cells", ()), cells, title=f"Batch {newest.batch_id[:6]}")
        if newest
        else None,
        Table("batches", found, batches, Covered.values, "Batches"),
    ]
    return Page([table for table in tables if table is not None], empty="no batch has been analysed yet.")


def _features(cell: Numbers) -> str:
    rows = cell["rows"]
    return ", ".join(f"{name} {100 * n / rows:.0f}" for name, n in cell.get("features", {}).items()) if rows else ""


class Mined(NamedTuple):
    """What was mined from a checkpoint."""

    row: MinedRow
    ordinal: int

    @property
    def numbers(self) -> Numbers:
        return self.row.numbers or {}

    @property
    def best_arm(self) -> str:
        yields = self.numbers.get("yields", {})
        if not yields:
            return ""
        name, (weak, asked) = max(yields.items(), key=lambda pair: (pair[1][0] / max(pair[1][1], 1), pair[1][1]))
        return f"{name}: {weak} of {asked}"

    @property
    def still_failed(self) -> str:
        follow_up = self.numbers.get("follow_up")
        if not follow_up:
            return ""
        return (
            f"{follow_up['mined_failed']} of {follow_up['mined']} mined, "
            f"{follow_up['random_failed']} of {follow_up['random']} random"
        )

    @property
    def against_random(self) -> str:
        follow_up = self.numbers.get("follow_up")
        if not follow_up:
            return ""
        excess = follow_up["excess"]
        return f"{100 * excess['low']:+.0f} to {100 * excess['high']:+.0f}"

    def values(self) -> dict[str, Any]:
        return {
            "checkpoint_id": self.row.checkpoint_id,
            "ordinal": self.ordinal,
            "count": self.row.count,
            "by_category": self.row.by_category,
            "artifact": self.row.artifact,
            "created_at": self.row.created_at,
            **self.numbers,
        }


@kind
def mined(reader: Reader, limit: Limit = 15) -> Page:
    """List what mining found, the newest checkpoint first.

    `still failed` counts the items of the previously mined set that a checkpoint got wrong, next to as many random
    items of the same families and levels. The range holds the difference with 95 % probability; if it includes 0,
    mining did not demonstrably beat chance. --json has the yield of every arm of the search.
    """
    query = select(MinedRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == MinedRow.checkpoint_id)
    found = [Mined(*row) for row in reader.session.execute(query.order_by(CheckpointRow.ordinal.desc()).limit(limit))]
    columns = {
        "": lambda m: f"#{m.ordinal}",
        ">mined": lambda m: m.row.count,
        "categories": lambda m: ", ".join(f"{count} {name}" for name, count in sorted(m.row.by_category.items())),
        ">asked": lambda m: m.numbers.get("asked", 0),
        "best arm": lambda m: m.best_arm,
        "still failed": lambda m: m.still_failed,
        "against random, points": lambda m: m.against_random,
        "at": lambda m: clock(m.row.created_at),
    }
    empty = "nothing has been mined yet: mining needs an evaluated checkpoint."
    return Page([Table("mined", found, columns, Mined.values)], empty=empty)


class Impact(NamedTuple):
    """The effect of a correction batch on one error class, at one evaluation after it."""

    row: ImpactRow
    ordinal: int

    def values(self) -> dict[str, Any]:
        return {name: getattr(self.row, name) for name in IMPACT_FIELDS} | {"ordinal": self.ordinal}


@kind
def corrections(reader: Reader, limit: Limit = 10) -> Page:
    """List the correction batches and their effects.

    The newest come first. An effect is the paired change on the probe items of the examples' levels: how many show the
    error class before and after, and the fall of its rate in points, with the 95 % range. Classes that did not become
    rarer get no examples for some batches.
    """
    session = reader.session
    query = select(BatchRow).where(BatchRow.origin == "correction").order_by(BatchRow.submitted_at.desc()).limit(limit)
    batches = session.scalars(query).all()
    measured = select(ImpactRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == ImpactRow.checkpoint_id)
    measured = measured.where(ImpactRow.batch_id.in_([batch.id for batch in batches]))
    measured = measured.order_by(ImpactRow.error_class, CheckpointRow.ordinal)
    impacts: dict[str, list[Impact]] = {batch.id: [] for batch in batches}
    for row in session.execute(measured):
        impacts[row[0].batch_id].append(Impact(*row))
    backed_off = classes_in_backoff(session)
    shown = {
        "batch": lambda b: b.id[:6],
        "state": lambda b: b.state,
        "submitted": lambda b: clock(b.submitted_at),
        ">corrections": lambda b: b.provenance.get("counts", {}).get("corrections", 0),
        ">ordinary": lambda b: b.provenance.get("counts", {}).get("replay", 0),
        "error classes": lambda b: _counts(b.provenance.get("classes", {})),
    }
    effects = {
        "batch": lambda i: i.row.batch_id[:6],
        "error class": lambda i: i.row.error_class,
        "at": lambda i: f"#{i.ordinal}",
        ">before": lambda i: i.row.before,
        ">after": lambda i: i.row.after,
        ">items": lambda i: i.row.items,
        ">fall": lambda i: f"{100 * (i.row.gains - i.row.losses) / i.row.items:+.1f}",
        "95 % range": lambda i: f"{100 * i.row.low:+.1f} to {100 * i.row.high:+.1f}",
    }

    def values(batch: BatchRow) -> dict[str, Any]:
        names = ("state", "submitted_at", "provenance")
        return {"batch_id": batch.id} | {name: getattr(batch, name) for name in names}

    measured_impacts = [impact for batch in batches for impact in impacts[batch.id]]
    return Page(
        [
            Table("batches", batches, shown, values),
            Table(
                "effects", measured_impacts, effects, lambda i: {"batch_id": i.row.batch_id, **i.values()}, "Effects"
            ),
        ],
        note="\n".join(f"no examples for now: {name} ({reason})" for name, reason in backed_off.items()),
        empty="no corrections yet: they are made once mining has found weak items.",
        facts={"backed_off": backed_off},
    )


@kind
def suites(reader: Reader) -> Page:
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
        "made": lambda row: clock(row.created_at),
        "retired": lambda row: clock(row.retired_at),
    }
    rows = reader.session.scalars(select(SuiteRow).order_by(SuiteRow.created_at)).all()
    return Page([Table("suites", rows, columns, values)], empty="there are no suites yet: the first run builds them.")
