"""The deployment gate: may this challenger replace this champion? Pure; it knows nothing of the ledger or servers.

``screen`` compares two records of the eval suite. It spends no error, because passing it proves nothing; it only
decides whether to open a challenge. ``decide`` compares two records of the confirm suite, which the screen never uses.
All of these must hold:

- the target, the whole suite, is proved better at the alpha of the k-th challenge of this champion;
- each protected family, pooled over its mastered levels, is proved not worse by the margin;
- no single level is proved worse (Holm over all levels);
- the smoke test has passed.

A family in which the champion masters no level is not protected, so the untrained base model is replaced by any model
that is proved better. A protected pool with fewer items than the full test needs is neither accepted untested nor
always refused: its alpha is relaxed until an equal model can pass, up to 1 - power, so that a drop by the margin is
still refused with probability ``power``. With too few items even for that, it must show no net loss. The reasons name
the rule. Only a family without any item is always refused.

Effects and margins are fractions, not percentages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from ratchet.evaluation.paired_outcomes import OutcomeTable, outcome_table, total_of
from ratchet.evaluation.record import Evaluation
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_tests import (
    alpha_spent,
    difference_interval,
    holm,
    lower_bound,
    mcnemar_better,
    noninferiority_p,
)
from ratchet.stats.power import PROTECTED_DISCORDANT_SHARE, SAFETY_ALPHA, affordable_alpha, min_items, pool_items
from ratchet.stats.proportions import Interval

HARM_ALPHA = 0.05
"""Family-wise alpha (Holm) to prove a single level worse. A constant, since raising it refuses equal models."""

Mastered = Mapping[str, Collection[int]]
"""Mastered levels, by family."""


class FrozenModel(BaseModel):
    """Base class of all parts of a decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TargetProof(FrozenModel):
    """The whole confirm suite: is the challenger better? ``p`` is from the exact one-sided McNemar test."""

    n: int
    gains: int
    losses: int
    effect: float
    interval: Interval
    p: float
    alpha: float
    proved: bool


class FamilyProof(FrozenModel):
    """One protected family, its mastered levels pooled: is the challenger not worse by ``margin`` or more?

    ``enough`` is True if the pool has ``items_needed`` items; with fewer, ``alpha`` is relaxed. ``rule`` is
    ``no_net_loss`` if the items are too few to prove anything even if the two models never differ.
    """

    family: str
    levels: tuple[int, ...]
    n: int
    items_needed: int
    enough: bool
    gains: int
    losses: int
    effect: float
    lower_bound: float
    margin: float
    rule: Literal["non_inferiority", "no_net_loss"]
    p: float
    alpha: float
    safe: bool


class LevelHarm(FrozenModel):
    """One level: is the challenger proved worse? ``p_holm`` is corrected for all levels of the suite."""

    family: str
    level: int
    n: int
    gains: int
    losses: int
    p: float
    p_holm: float
    harmed: bool


class Evidence(FrozenModel):
    """All test results of one challenge."""

    champion: str
    challenger: str
    k: int
    alpha_k: float
    target: TargetProof
    families: tuple[FamilyProof, ...]
    unprotected: tuple[str, ...]
    levels: tuple[LevelHarm, ...]
    smoke_passed: bool


class Promote(FrozenModel):
    """The challenger is proved better and safe. ``reason`` is a readable explanation."""

    decision: Literal["promote"] = "promote"
    evidence: Evidence
    reason: str


class Refuse(FrozenModel):
    """Something was not proved; each of ``reasons`` is one sentence."""

    decision: Literal["refuse"] = "refuse"
    evidence: Evidence
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        return " ".join(self.reasons)


Decision = Annotated[Promote | Refuse, Field(discriminator="decision")]


def decide(
    champion: Evaluation,
    challenger: Evaluation,
    k: int,
    mastered: Mastered,
    settings: GateSettings,
    smoke_passed: bool,
) -> Promote | Refuse:
    """Decide on the k-th challenge (from 1) of this champion, from the confirm records of both.

    ``mastered`` are the champion's mastered levels of the protected families, from its eval record and never from the
    confirm record. Raises NotComparable or EmptyEvaluation.
    """
    evidence = weigh(
        outcome_table(champion, challenger),
        champion=champion.checkpoint_id,
        challenger=challenger.checkpoint_id,
        k=k,
        mastered=mastered,
        settings=settings,
        smoke_passed=smoke_passed,
    )
    return conclude(evidence)


def weigh(
    table: OutcomeTable,
    *,
    champion: str,
    challenger: str,
    k: int,
    mastered: Mastered,
    settings: GateSettings,
    smoke_passed: bool,
) -> Evidence:
    """All tests of one challenge. They depend on the records through the paired outcomes alone."""
    protected = {family: levels for family, levels in mastered.items() if levels}
    alpha_k = alpha_spent(settings.alpha, k)
    return Evidence(
        champion=champion,
        challenger=challenger,
        k=k,
        alpha_k=alpha_k,
        target=prove_target(table, alpha_k),
        families=tuple(prove_family(table, family, levels, settings) for family, levels in sorted(protected.items())),
        unprotected=tuple(sorted({cell.family for cell in table} - protected.keys())),
        levels=find_harm(table, HARM_ALPHA),
        smoke_passed=smoke_passed,
    )


def prove_target(table: OutcomeTable, alpha: float) -> TargetProof:
    """Paired superiority over all items."""
    total = total_of(table)
    p = float(mcnemar_better(total.gains, total.losses))
    return TargetProof(
        n=total.n,
        gains=total.gains,
        losses=total.losses,
        effect=total.effect,
        interval=difference_interval(total.gains, total.losses, total.n),
        p=p,
        alpha=alpha,
        proved=p <= alpha,
    )


def prove_family(
    table: OutcomeTable,
    family: str,
    levels: Collection[int],
    settings: GateSettings,
    safety_alpha: float = SAFETY_ALPHA,
) -> FamilyProof:
    """Paired non-inferiority over the mastered levels of one family. The module docstring covers small pools."""
    pool = total_of(cell for cell in table if cell.family == family and cell.level in levels)
    needed = pool_items(settings)
    enough = pool.n >= needed
    alpha = affordable_alpha(pool.n, PROTECTED_DISCORDANT_SHARE, settings.margin, safety_alpha, settings.power)
    testable = pool.n >= min_items(settings.margin, alpha)
    p = float(noninferiority_p(pool.gains, pool.losses, pool.n, settings.margin)) if pool.n else 1.0
    return FamilyProof(
        family=family,
        levels=tuple(sorted(levels)),
        n=pool.n,
        items_needed=needed,
        enough=enough,
        gains=pool.gains,
        losses=pool.losses,
        effect=pool.effect,
        lower_bound=float(lower_bound(pool.gains, pool.losses, pool.n, alpha)) if pool.n else -1.0,
        margin=settings.margin,
        rule="non_inferiority" if testable else "no_net_loss",
        p=p,
        alpha=alpha,
        safe=p <= alpha if testable else pool.n > 0 and pool.losses <= pool.gains,
    )


def find_harm(table: OutcomeTable, alpha: float) -> tuple[LevelHarm, ...]:
    """One-sided tests of each level being worse, with Holm's correction for the number of levels."""
    raw = mcnemar_better([cell.losses for cell in table], [cell.gains for cell in table])
    return tuple(
        LevelHarm(**cell.model_dump(), p=float(p), p_holm=corrected, harmed=corrected <= alpha)
        for cell, p, corrected in zip(table, raw, holm(list(raw)), strict=True)
    )


def conclude(evidence: Evidence) -> Promote | Refuse:
    """Promote if every test has passed, else refuse with one sentence for each that has not."""
    reasons = [
        *_target_reasons(evidence),
        *(_family_reason(proof) for proof in evidence.families if not proof.safe),
        *(_harm_reason(level) for level in evidence.levels if level.harmed),
        *([] if evidence.smoke_passed else ["The smoke test failed."]),
    ]
    if reasons:
        return Refuse(evidence=evidence, reasons=tuple(reasons))
    return Promote(evidence=evidence, reason=_promotion_reason(evidence))


def _target_reasons(evidence: Evidence) -> list[str]:
    target = evidence.target
    if target.proved:
        return []
    return [
        f"Not proved better: {target.gains} gains and {target.losses} losses on {target.n} items "
        f"({target.effect:+.1%}), p = {target.p:.2g} above level {target.alpha:.2g} of challenge {evidence.k}."
    ]


def _family_reason(proof: FamilyProof) -> str:
    if not proof.n:
        return f"Family {proof.family} has no confirm items of its mastered levels: build a new confirm suite."
    counts = f"{proof.gains} gains and {proof.losses} losses on {proof.n} mastered items ({proof.effect:+.1%})"
    if proof.rule == "no_net_loss":
        return f"Family {proof.family} is worse: {counts}; with this few items no net loss is allowed."
    sentence = (
        f"Family {proof.family} is not proved safe: {counts}; the drop may be {-proof.lower_bound:.1%}, "
        f"the margin is {proof.margin:.1%}."
    )
    return sentence if proof.enough else f"{sentence} The test is {_underpowered(proof)}."


def _harm_reason(level: LevelHarm) -> str:
    return (
        f"{level.family} level {level.level} is worse: {level.gains} gains and {level.losses} losses "
        f"on {level.n} items, p = {level.p_holm:.2g} after correction."
    )


def _promotion_reason(evidence: Evidence) -> str:
    target = evidence.target
    sentence = (
        f"Proved better: {target.gains} gains and {target.losses} losses on {target.n} items ({target.effect:+.1%}, "
        f"95 % from {target.interval.low:+.1%} to {target.interval.high:+.1%}), p = {target.p:.2g} "
        f"at level {target.alpha:.2g} of challenge {evidence.k}."
    )
    if not evidence.families:
        return f"{sentence} The champion masters nothing yet, so nothing is protected."
    names = ", ".join(_describe_safe(proof) for proof in evidence.families)
    return f"{sentence} Not worse in {names}; no level is proved worse."


def _describe_safe(proof: FamilyProof) -> str:
    if proof.rule == "no_net_loss":
        return f"{proof.family} (no net loss; {proof.n} items are too few for a test)"
    weak = "" if proof.enough else f"; {_underpowered(proof)}"
    return f"{proof.family} (drop below {proof.margin:.1%} on {proof.n} items{weak})"


def _underpowered(proof: FamilyProof) -> str:
    return f"underpowered: {proof.n} of {proof.items_needed} items, tested at α = {proof.alpha:.2f}"


class Screen(FrozenModel):
    """Whether to open a challenge, with the numbers and the reason."""

    champion: str
    challenger: str
    n: int
    gains: int
    losses: int
    effect: float
    p: float
    alpha: float
    harmed: tuple[LevelHarm, ...]
    is_worth_opening: bool
    reason: str


def screen(champion: Evaluation, challenger: Evaluation, settings: GateSettings) -> Screen:
    """Compare two eval records. Raises NotComparable or EmptyEvaluation."""
    table = outcome_table(champion, challenger)
    return screen_outcomes(table, champion.checkpoint_id, challenger.checkpoint_id, settings)


def screen_outcomes(table: OutcomeTable, champion: str, challenger: str, settings: GateSettings) -> Screen:
    """As ``screen``, from paired outcomes."""
    total = total_of(table)
    p = float(mcnemar_better(total.gains, total.losses))
    harmed = tuple(level for level in find_harm(table, HARM_ALPHA) if level.harmed)
    return Screen(
        champion=champion,
        challenger=challenger,
        n=total.n,
        gains=total.gains,
        losses=total.losses,
        effect=total.effect,
        p=p,
        alpha=settings.screen_alpha,
        harmed=harmed,
        is_worth_opening=p <= settings.screen_alpha and not harmed,
        reason=_screen_reason(total.effect, p, settings.screen_alpha, harmed),
    )


def _screen_reason(effect: float, p: float, alpha: float, harmed: tuple[LevelHarm, ...]) -> str:
    if harmed:
        worse = ", ".join(f"{level.family} level {level.level}" for level in harmed)
        return f"Worse on the eval suite in {worse}."
    if p > alpha:
        return f"Not promising on the eval suite: {effect:+.1%}, p = {p:.2g} above {alpha:.2g}."
    return f"Promising on the eval suite: {effect:+.1%}, p = {p:.2g}."
