"""The gate: may this challenger replace this champion?

It knows two records of the confirm suite and nothing of ledgers or servers. All of these must hold:

- the target, the whole suite, is proved better at the level that the k-th challenge of this champion may spend;
- each protected family, pooled over its mastered levels, is proved not worse by the margin;
- no single level is proved worse (Holm over all levels);
- the smoke test has passed.

A family of which the champion masters nothing has nothing to lose and is not protected, so the untrained base is
replaced by whatever is proved better. A protected pool with fewer items than the full test needs is not let through
unseen, nor does it bar the gate for ever: its level is relaxed as far as an equal model needs it, to 1 - power at most,
so that a drop of the margin still is refused with the chance ``power``; and where even for that too few items are
there, it must show no net loss. Both are said in the reasons. Only a family without any item is refused outright.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ratchet.evaluation.paired_outcomes import OutcomeTable, outcome_table, total_of
from ratchet.evaluation.record import Evaluation
from ratchet.settings.gate import GateSettings
from ratchet.stats.paired_tests import (
    alpha_spent,
    difference_interval,
    holm,
    lower_bound,
    mcnemar_better,
    noninferiority_p,
)
from ratchet.stats.power import affordable_alpha, fewest_items, pool_items

from deployer.proof import Evidence, FamilyProof, LevelHarm, Promote, Refuse, TargetProof

Mastered = Mapping[str, Collection[int]]


def decide(
    champion: Evaluation,
    challenger: Evaluation,
    k: int,
    mastered: Mastered,
    settings: GateSettings,
    smoke_passed: bool,
) -> Promote | Refuse:
    """The k-th challenge (from 1) of this champion, on confirm records of both.

    ``mastered`` are the champion's mastered levels of the families that are to be protected, read off its eval record
    (``ratchet.evaluation.record``), never off the confirm record. Raises NotComparable or EmptyEvaluation.
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
    """All tests of one challenge. They depend on the records through the flips alone."""
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
        levels=find_harm(table, settings.harm_alpha),
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


def prove_family(table: OutcomeTable, family: str, levels: Collection[int], settings: GateSettings) -> FamilyProof:
    """Paired non-inferiority over the mastered levels of one family; see the module for pools that are too small."""
    pool = total_of(cell for cell in table if cell.family == family and cell.level in levels)
    needed = pool_items(settings)
    enough = pool.n >= needed
    alpha = affordable_alpha(
        pool.n, settings.protected_flip_share, settings.margin, settings.safety_alpha, settings.power
    )
    testable = pool.n >= fewest_items(settings.margin, alpha)
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
    """Each level's one-sided test of being worse, corrected for their number."""
    raw = mcnemar_better([cell.losses for cell in table], [cell.gains for cell in table])
    return tuple(
        LevelHarm(**cell.model_dump(), p=float(p), p_holm=corrected, harmed=corrected <= alpha)
        for cell, p, corrected in zip(table, raw, holm(list(raw)), strict=True)
    )


def conclude(evidence: Evidence) -> Promote | Refuse:
    """Promote if nothing speaks against it, else refuse with a sentence for each thing that does."""
    reasons = [
        *_target_reasons(evidence),
        *(_family_reason(proof) for proof in evidence.families if not proof.safe),
        *(_harm_reason(level) for level in evidence.levels if level.harmed),
        *([] if evidence.smoke_passed else ["The smoke test failed."]),
    ]
    if reasons:
        return Refuse(evidence=evidence, reasons=tuple(reasons))
    return Promote(evidence=evidence, reason=_praise(evidence))


def _target_reasons(evidence: Evidence) -> list[str]:
    target = evidence.target
    if target.proved:
        return []
    return [
        f"Not proved better: {target.gains} gains and {target.losses} losses on {target.n} items "
        f"({target.effect:+.1%}), p = {target.p:.2g} where challenge {evidence.k} may spend {target.alpha:.2g}."
    ]


def _family_reason(proof: FamilyProof) -> str:
    if not proof.n:
        return f"Family {proof.family} has no confirm item of its mastered levels: build the confirm suite anew."
    counts = f"{proof.gains} gains and {proof.losses} losses on {proof.n} mastered items ({proof.effect:+.1%})"
    if proof.rule == "no_net_loss":
        return f"Family {proof.family} lost: {counts}; with so few items no net loss is allowed."
    sentence = (
        f"Family {proof.family} is not proved safe: {counts}; the drop may be {-proof.lower_bound:.1%}, "
        f"the margin is {proof.margin:.1%}."
    )
    if proof.enough:
        return sentence
    return f"{sentence} The full test needs {proof.items_needed} items, so it was tested at {proof.alpha:.2g}."


def _harm_reason(level: LevelHarm) -> str:
    return (
        f"{level.family} level {level.level} is worse: {level.gains} gains and {level.losses} losses "
        f"on {level.n} items, p = {level.p_holm:.2g} after correction."
    )


def _praise(evidence: Evidence) -> str:
    target = evidence.target
    sentence = (
        f"Proved better: {target.gains} gains and {target.losses} losses on {target.n} items ({target.effect:+.1%}, "
        f"95 % from {target.interval.low:+.1%} to {target.interval.high:+.1%}), p = {target.p:.2g} "
        f"at level {target.alpha:.2g} of challenge {evidence.k}."
    )
    if not evidence.families:
        return f"{sentence} The champion masters nothing yet, so nothing is protected."
    names = ", ".join(_safe_words(proof) for proof in evidence.families)
    return f"{sentence} Not worse in {names}; no level is proved worse."


def _safe_words(proof: FamilyProof) -> str:
    if proof.rule == "no_net_loss":
        return f"{proof.family} (no net loss; {proof.n} items are too few for a test)"
    weak = "" if proof.enough else f", tested at {proof.alpha:.2g} for want of {proof.items_needed} items"
    return f"{proof.family} (drop below {proof.margin:.1%} on {proof.n} items{weak})"
