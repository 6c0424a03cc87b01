"""The tables of checkpoints and their lineage, of deployments, and of evaluations and judgements."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ratchet.ledger.tables.columns import Base, BigInt, Float, Id, Json, Serial


class CheckpointRow(Base):
    """A saved model. ``ordinal`` counts from 0, the base model. ``state``: saved, broken, or deleted by retention.

    ``artifact`` holds the model's files, ``state_artifact`` optimizer, schedule, random state and data offset.
    ``batch_id`` and ``offset`` say how far in which batch it was saved; ``save_s`` is how long that took, from the last
    step to this row. ``degenerate`` says how its answers are degenerate, as testing found.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "created_at"),)

    id: Mapped[Id]
    ordinal: Mapped[int] = mapped_column(unique=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoints.id"))
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    offset: Mapped[int] = mapped_column(default=0)
    step: Mapped[int]
    tokens: Mapped[BigInt]
    weights: Mapped[str]
    artifact: Mapped[str]
    state_artifact: Mapped[str | None]
    size_bytes: Mapped[BigInt]
    train_loss: Mapped[float | None]
    tokens_per_s: Mapped[float | None]
    save_s: Mapped[float | None] = mapped_column(default=None)
    state: Mapped[str] = mapped_column(default="saved")
    reason: Mapped[str] = mapped_column(default="")
    degenerate: Mapped[str | None] = mapped_column(default=None)
    created_at: Mapped[Float]


class LineageRow(Base):
    """The lineage of checkpoints that training continues. The next segment starts from ``head_id``.

    ``fresh_optimizer`` is set by a rewind. ``paused`` is the operator's pause flag. ``adapter_base_id`` is the
    checkpoint whose frozen weights the adapters are trained on, where adapters are trained.
    """

    __tablename__ = "lineages"

    name: Mapped[Id]
    head_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    fresh_optimizer: Mapped[bool] = mapped_column(default=False)
    paused: Mapped[bool] = mapped_column(default=False)
    running_batch_id: Mapped[str | None]
    adapter_base_id: Mapped[str | None]
    updated_at: Mapped[Float]


class ServingRow(Base):
    """Desired and actual deployment. ``desired_id`` is the champion, ``actual_id`` what the server last reported.

    ``proved`` is False for a champion that an operator forced. ``frozen_reason`` is set while no deployment is allowed,
    ``fallback_reason`` while an earlier checkpoint is served because the champion cannot be. ``canary_*`` is the last
    comparison of a checkpoint's answers on the server with those that were judged.
    """

    __tablename__ = "serving"

    name: Mapped[Id]
    desired_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    previous_id: Mapped[str | None]
    proved: Mapped[bool] = mapped_column(default=True)
    frozen_reason: Mapped[str | None]
    actual_id: Mapped[str | None]
    actual_at: Mapped[float | None]
    fallback_reason: Mapped[str | None] = mapped_column(default=None)
    canary_id: Mapped[str | None] = mapped_column(default=None)
    canary_passed: Mapped[bool | None] = mapped_column(default=None)
    canary_difference: Mapped[float | None] = mapped_column(default=None)
    canary_at: Mapped[float | None] = mapped_column(default=None)
    since_at: Mapped[Float]


class DeploymentRow(Base):
    """A change of what is to be served, and why. Written by ratchet.ledger.deployments only.

    ``action``: base, deploy, rollback, freeze, unfreeze, unblock, reset-fencing. ``actor``: setup, gate, watch,
    operator. ``reason`` and ``numbers`` are for people; nothing is decided by them.
    """

    __tablename__ = "deployments"

    id: Mapped[Serial]
    action: Mapped[str]
    actor: Mapped[str]
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    previous_id: Mapped[str | None]
    reason: Mapped[str]
    numbers: Mapped[Json]
    token: Mapped[int]
    created_at: Mapped[Float]


class DrillRow(Base):
    """A requested rollback drill, and how it went. Written by ratchet.ledger.drills only.

    ``outcome`` is None until it is finished, then caught (the canary refused the planted checkpoint, and the champion
    is live as before), not caught or failed; ``detail`` says why. ``steps`` has the seconds of each step that has
    ended. ``waiting_for`` is why it has not begun, ``attempts`` how often it was begun. ``planted_artifact`` names the
    planted files while they exist. ``before_*`` and ``after_*`` are the live checkpoint's id and weights as the server
    reported them.
    """

    __tablename__ = "drills"

    id: Mapped[Serial]
    requested_at: Mapped[Float]
    requested_by: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    waiting_for: Mapped[str | None] = mapped_column(Text, default=None)
    started_at: Mapped[float | None] = mapped_column(default=None)
    finished_at: Mapped[float | None] = mapped_column(default=None)
    outcome: Mapped[str | None] = mapped_column(default=None)
    detail: Mapped[str] = mapped_column(Text, default="")
    steps: Mapped[Json] = mapped_column(default=dict)
    planted_artifact: Mapped[str | None] = mapped_column(default=None)
    before_id: Mapped[str | None] = mapped_column(default=None)
    before_weights: Mapped[str | None] = mapped_column(default=None)
    after_id: Mapped[str | None] = mapped_column(default=None)
    after_weights: Mapped[str | None] = mapped_column(default=None)


class ChallengeRow(Base):
    """The k-th challenge of a champion on a confirm suite, and the gate's outcome."""

    __tablename__ = "challenges"
    __table_args__ = (UniqueConstraint("champion_id", "k"), UniqueConstraint("champion_id", "challenger_id"))

    id: Mapped[Serial]
    champion_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    challenger_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    k: Mapped[int]
    suite_id: Mapped[str] = mapped_column(ForeignKey("suites.id"))
    outcome: Mapped[str | None]
    numbers: Mapped[Json]
    created_at: Mapped[Float]


class BlockRow(Base):
    """Weights that were rolled back, and may not be deployed until an operator unblocks them."""

    __tablename__ = "blocks"

    weights: Mapped[Id]
    checkpoint_id: Mapped[str]
    reason: Mapped[str]
    created_at: Mapped[Float]


class SuiteRow(Base):
    """A versioned set of items of one pool. ``uses`` counts challenges spent on a confirm suite.

    ``noise`` has the noise floors (ratchet.evaluation.noise_floor) measured on it, by their conditions in words; None
    before the first.
    """

    __tablename__ = "suites"
    __table_args__ = (Index(None, "pool", "retired_at"),)

    id: Mapped[Id]
    pool: Mapped[str]
    ordinal: Mapped[int]
    artifact: Mapped[str]
    items: Mapped[int]
    uses: Mapped[int] = mapped_column(default=0)
    noise: Mapped[Json | None] = mapped_column(default=None)
    created_at: Mapped[Float]
    retired_at: Mapped[float | None]


class EvaluationRequestRow(Base):
    """A request for a checkpoint's record on a suite, beyond those that testing makes for every checkpoint."""

    __tablename__ = "evaluation_requests"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    suite_id: Mapped[str] = mapped_column(ForeignKey("suites.id"), primary_key=True)
    requested_by: Mapped[str]
    created_at: Mapped[Float]


class EvaluationRow(Base):
    """One checkpoint's record on one suite; ``artifact`` holds a line an item. ``key`` is the RecordKey's fields.

    ``correct`` and ``by_level`` count graded items; ``scores`` has the mean of each task of metric loss or judge (a
    TaskScore). ``tally`` has the scores of the items: a ranking reads it instead of the artifact.
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("checkpoint_id", "suite_id"),
        Index(None, "suite_id", "created_at", "checkpoint_id"),
    )

    id: Mapped[Id]
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    suite_id: Mapped[str] = mapped_column(ForeignKey("suites.id"))
    pool: Mapped[str]
    key: Mapped[Json]
    artifact: Mapped[str]
    items: Mapped[int]
    correct: Mapped[int]
    by_level: Mapped[Json]
    scores: Mapped[Json | None] = mapped_column(default=None)
    tokens_per_s: Mapped[Float]
    tally: Mapped[Json | None]
    created_at: Mapped[Float]


class RegressionRow(Base):
    """The regression monitor's numbers for a checkpoint."""

    __tablename__ = "regressions"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    baseline_id: Mapped[str | None]
    severity: Mapped[str]
    numbers: Mapped[Json]
    created_at: Mapped[Float]


class RankingRow(Base):
    """A ranking over all evaluated checkpoints; the newest row is in force."""

    __tablename__ = "rankings"

    id: Mapped[Serial]
    best_checkpoint_id: Mapped[str]
    entries: Mapped[Json]
    created_at: Mapped[Float]


class CalibrationRow(Base):
    """The calibrator's numbers for a checkpoint. ``shipped`` is what a deployment serves of them, a Certainty;
    empty where there was too little to calibrate on."""

    __tablename__ = "calibrations"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    shipped: Mapped[Json]
    numbers: Mapped[Json]
    created_at: Mapped[Float]
