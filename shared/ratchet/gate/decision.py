"""The deployment gate: may this challenger replace this champion? Pure; it knows nothing of the ledger or servers.

``decide`` compares two records of the confirm suite, which the screen (``ratchet.gate.screen``) never uses. All of
these must hold:

- a target is proved better at the alpha of the k-th challenge of this champion. All graded items are one target, each
  task measured by loss or by an LLM judge is one more; with m targets each has its m-th part of alpha (Bonferroni);
- each protected family, pooled over its mastered levels, is proved not worse by the margin;
- each task of the user, whatever its metric and success rate, is proved not worse by a margin that its items allow;
- general ability: the drift from the base model, measured on its own answers, is proved below ``gate.general_margin``.
  It is measured from the base and not from the champion, so that small drifts cannot add up;
- no single level is proved worse, and no task's answers more often empty, endless or repeating (Holm over all);
- the smoke test has passed.

A registered family in which the champion masters no level is not protected, so the untrained base model is replaced by
any model that is proved better. A protected pool with fewer items than the full test needs is neither accepted untested
nor always refused: its alpha is relaxed until an equal model can pass, up to 1 - power, so that a drop by the margin is
still refused with probability ``power``; for a user's task the margin grows after that, up to a limit. With too few
items even for that, it must show no net loss. The reasons name the rule and the margin. Only a family without any item
is always refused.

Effects and margins are fractions, not percentages; of losses they are nats per token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, Literal

from pydantic import Field

from ratchet.evaluation.paired_outcomes import OutcomeTable, PairedScores, ScoreTable, outcome_table, score_table
from ratchet.evaluation.record import GENERAL, Evaluation
from ratchet.gate.proof_values import FamilyProof, FrozenModel, GeneralProof, LevelHarm, ScoreProof, TargetProof
from ratchet.gate.proofs import (
    HARM_ALPHA,
    expected_share,
    expected_spread,
    find_harm,
    prove_family,
    prove_general,
    prove_score_safe,
    prove_targets,
    prove_task,
)
from ratchet.gate.reasons import promotion_reason, refusal_reasons
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_tests import alpha_spent

Mastered = Mapping[str, Collection[int]]
"""Mastered levels, by family."""


class Evidence(FrozenModel):
    """All test results of one challenge."""

    champion: str
    challenger: str
    k: int
    alpha_k: float
    targets: tuple[TargetProof, ...]
    families: tuple[FamilyProof, ...]
    tasks: tuple[ScoreProof, ...] = ()
    general: GeneralProof | None = None
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
    *,
    tasks: AbstractSet[str] = frozenset(),
    base: Evaluation | None = None,
    screened: tuple[Evaluation, Evaluation] | None = None,
) -> Promote | Refuse:
    """Decide on the k-th challenge (from 1) of this champion, from the confirm records of both.

    ``mastered`` are the champion's mastered levels of the protected families, from its eval record and never from the
    confirm record. ``tasks`` are the user's tasks, and the general one, as far as they are protected. ``base`` is the
    base model's confirm record, needed where the suite has items of the general task. ``screened`` are the eval records
    of champion and challenger, by which the margins of the user's tasks are chosen; without them the confirm records
    choose. Raises NotComparable or EmptyEvaluation.
    """
    drifted = score_table(base, challenger) if base is not None else ()
    evidence = weigh(
        outcome_table(champion, challenger),
        champion=champion.checkpoint_id,
        challenger=challenger.checkpoint_id,
        k=k,
        mastered=mastered,
        settings=settings,
        smoke_passed=smoke_passed,
        scores=score_table(champion, challenger),
        tasks=tasks,
        drift=next((task for task in drifted if task.family == GENERAL), None),
        screened_table=outcome_table(*screened) if screened is not None else (),
        screened_scores=score_table(*screened) if screened is not None else (),
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
    scores: ScoreTable = (),
    tasks: AbstractSet[str] = frozenset(),
    drift: PairedScores | None = None,
    screened_table: OutcomeTable = (),
    screened_scores: ScoreTable = (),
    alpha: float | None = None,
) -> Evidence:
    """All tests of one challenge. They depend on the records through the paired outcomes alone.

    ``alpha`` is the level of the targets together, by default the share of ``gate.alpha`` that challenge k may spend;
    k is 0 outside a run.
    ``drift`` is the general task from the base's record to the challenger's. The margins of the user's tasks depend on
    how much the two models differ on the eval suite (``screened_…``), so that the data tested do not choose them.
    """
    own = sorted({cell.family for cell in table if cell.family in tasks})
    protected = {family: levels for family, levels in mastered.items() if levels and family not in own}
    alpha_k = alpha_spent(settings.alpha, k) if alpha is None else alpha
    own_proofs = [prove_task(table, family, settings, expected_share(screened_table, family)) for family in own]
    safe_scores = [
        prove_score_safe(task, settings, expected_spread(screened_scores, task.family))
        for task in scores
        if task.family in tasks - {GENERAL}
    ]
    families = [prove_family(table, family, levels, settings) for family, levels in sorted(protected.items())]
    return Evidence(
        champion=champion,
        challenger=challenger,
        k=k,
        alpha_k=alpha_k,
        targets=prove_targets(table, scores, alpha_k, tasks),
        families=(*families, *own_proofs),
        tasks=tuple(safe_scores),
        general=prove_general(drift, settings) if drift is not None and GENERAL in tasks else None,
        unprotected=tuple(sorted(families_of(table, scores) - protected.keys() - tasks)),
        levels=find_harm(table, HARM_ALPHA, scores),
        smoke_passed=smoke_passed,
    )


def families_of(table: OutcomeTable, scores: ScoreTable) -> set[str]:
    """All families and tasks of two records."""
    return {cell.family for cell in table} | {task.family for task in scores}


def conclude(evidence: Evidence) -> Promote | Refuse:
    """Promote if every test has passed, else refuse with one sentence for each that has not."""
    reasons = refusal_reasons(evidence)
    if reasons:
        return Refuse(evidence=evidence, reasons=reasons)
    return Promote(evidence=evidence, reason=promotion_reason(evidence))
