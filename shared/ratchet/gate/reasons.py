"""The gate's numbers in sentences: why a challenger is promoted or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratchet.evaluation.record import Metric
from ratchet.gate.proof_values import FamilyProof, GeneralProof, LevelHarm, ScoreProof, TargetProof
from ratchet.stats.paired_scores import BOUNDS

if TYPE_CHECKING:
    from ratchet.gate.decision import Evidence


def refusal_reasons(evidence: Evidence) -> tuple[str, ...]:
    """One sentence for each test that has not passed; none where all have."""
    general = evidence.general
    return (
        *([] if any(target.proved for target in evidence.targets) else [_not_proved(evidence)]),
        *(_family_reason(proof) for proof in evidence.families if not proof.safe),
        *(_score_reason(proof) for proof in evidence.tasks if not proof.safe),
        *([] if general is None or general.safe else [_general_reason(general)]),
        *(_harm_reason(level) for level in evidence.levels if level.harmed),
        *([] if evidence.smoke_passed else ["The smoke test failed."]),
    )


def promotion_reason(evidence: Evidence) -> str:
    """What was proved, and what is not worse."""
    proved = "; ".join(f"{_target(target)}, {_p(target, evidence.k)}" for target in evidence.targets if target.proved)
    safe = [*map(_family_safe, evidence.families), *map(_score_safe, evidence.tasks)]
    if evidence.general is not None:
        safe.append(_general_safe(evidence.general))
    if not safe:
        return f"Proved better{proved}. The champion masters nothing yet, so nothing is protected."
    return f"Proved better{proved}. Not worse in {', '.join(safe)}; no level is proved worse."


def _not_proved(evidence: Evidence) -> str:
    if not evidence.targets:
        return "Not proved better: the confirm suite has no items of a target."
    several = [
        f"{_target(target, with_interval=False)}, p = {target.p:.2g} above level {target.alpha:.2g}"
        f"{_challenge(evidence.k)}{_unmeasured(target)}"
        for target in evidence.targets
    ]
    return f"Not proved better{'; '.join(several)}."


def _unmeasured(target: TargetProof) -> str:
    return "" if target.n else " (no item has a score in both records)"


def _target(target: TargetProof, with_interval: bool = True) -> str:
    """``: 42 gains and 12 losses on 400 items (…)``, or `` on menus: loss 1.92 → 1.61 nats/token on 60 items (…)``."""
    place = f" on {target.task}" if target.task else ""
    numbers = _graded(target, with_interval) if target.metric == "accuracy" else _scored(target, with_interval)
    return f"{place}: {numbers}"


def _graded(target: TargetProof, with_interval: bool) -> str:
    interval = ""
    if with_interval and target.interval is not None:
        interval = f", 95 % from {target.interval.low:+.1%} to {target.interval.high:+.1%}"
    counts = f"{target.gains} gains and {target.losses} losses on {target.n} items"
    return f"{counts} ({target.effect:+.1%}{interval})"


def _scored(target: TargetProof, with_interval: bool) -> str:
    """The change of the measure: of a loss it is negative where the effect is positive."""
    change = effect_text(target.effect, target.metric)
    details = [change]
    bound = BOUNDS[target.metric]
    if abs(target.effect - target.clipped_effect) > 0.005 * bound:
        details.append(f"{effect_text(target.clipped_effect, target.metric)} with items clipped at {bound:g}")
    if with_interval and target.interval is not None:
        ends = [effect_text(end, target.metric) for end in (target.interval.low, target.interval.high)]
        low, high = reversed(ends) if target.metric == "loss" else ends
        details.append(f"95 % from {low} to {high}")
    means = _means(target.before or 0.0, target.after or 0.0, target.metric)
    return f"{means} on {target.n} items{_missing(target.missing)} ({', '.join(details)})"


def _missing(items: int) -> str:
    """What items count as that have a score before, and none after: the challenger's answer could not be judged."""
    return f", and {items} without a score of the challenger's, which count as the worst" if items else ""


def _means(before: float, after: float, metric: Metric) -> str:
    if metric == "loss":
        return f"loss {before:.2f} → {after:.2f} nats/token"
    return f"preferred over the reference {before:.0%} → {after:.0%}"


def effect_text(effect: float, metric: Metric) -> str:
    """An improvement as the change of the measure: points, or nats a token, where a gain is a fall of the loss."""
    if metric != "loss":
        return f"{effect:+.1%}"
    change = round(-effect, 2) + 0.0  # never a negative zero
    return f"{change:+.2f}".replace("-", "−")


def _p(target: TargetProof, k: int) -> str:
    return f"p = {target.p:.2g} at level {target.alpha:.2g}{_challenge(k)}"


def _challenge(k: int) -> str:
    """Outside a run there are no challenges, and k is 0."""
    return f" of challenge {k}" if k else ""


def _family_reason(proof: FamilyProof) -> str:
    kind, items = ("Task", "items") if proof.is_task else ("Family", "mastered items")
    if not proof.n:
        return f"{kind} {proof.family} has no confirm items of its mastered levels: build a new confirm suite."
    counts = f"{proof.gains} gains and {proof.losses} losses on {proof.n} {items} ({proof.effect:+.1%})"
    if proof.rule == "no_net_loss":
        return f"{kind} {proof.family} is worse: {counts}; with this few items no net loss is allowed."
    sentence = (
        f"{kind} {proof.family} is not proved safe: {counts}; the drop may be {-proof.lower_bound:.1%}, "
        f"the margin is {proof.margin:.1%}."
    )
    return sentence if proof.enough else f"{sentence} The test is {_underpowered(proof)}."


def _family_safe(proof: FamilyProof) -> str:
    if proof.rule == "no_net_loss":
        return f"{proof.family} (no net loss; {proof.n} items are too few for a test)"
    weak = "" if proof.enough else f"; {_underpowered(proof)}"
    return f"{proof.family} (drop below {proof.margin:.1%} on {proof.n} items{weak})"


def _underpowered(proof: FamilyProof) -> str:
    return f"underpowered: {proof.n} of {proof.items_needed} items, tested at α = {proof.alpha:.2f}"


def _score_reason(proof: ScoreProof) -> str:
    if not proof.n:
        return (
            f"Task {proof.family} has no item with a score in both records, of {proof.unscored}: nothing is proved "
            f"about it. `ratchet data set {proof.family} --unprotected` lets checkpoints be deployed all the same."
        )
    means = f"{_means(proof.before, proof.after, proof.metric)} on {proof.n} items{_missing(proof.missing)}"
    if proof.rule == "no_net_loss":
        return f"Task {proof.family} is worse: {means}; with this few items no rise is allowed."
    worst = effect_text(min(proof.lower_bound, proof.effect), proof.metric)
    return f"Task {proof.family} is not proved safe: {means}; the change may be {worst}, {_margin(proof)}."


def _score_safe(proof: ScoreProof) -> str:
    if proof.rule == "no_net_loss":
        return f"{proof.family} ({proof.n} items are too few for a test; the mean is not worse)"
    return f"{proof.family} ({_margin(proof)}, {proof.n} items{_missing(proof.missing)})"


def _margin(proof: ScoreProof) -> str:
    margin = f"{proof.margin:.2f} nats/token" if proof.metric == "loss" else f"{proof.margin:.1%}"
    return f"the margin is {margin} at α = {proof.alpha:.2f}"


def _general_reason(proof: GeneralProof) -> str:
    problems = []
    if not proof.is_near:
        problems.append(
            f"loss of the base's own answers {proof.before:.2f} → {proof.after:.2f} nats/token on {proof.n} items"
            f"{_missing(proof.missing)}; the drift may be {max(proof.drift_at_most, proof.drift):.2f}, the margin is "
            f"{proof.margin:.2f}"
        )
    if proof.is_shortened:
        problems.append(
            f"{proof.shortened} of {proof.answers} answers are shorter than a third of the base's, which is more than "
            f"{proof.shortened_limit:.0%} (p = {proof.shortened_p:.2g})"
        )
    return f"General ability is not proved safe: {'; '.join(problems)}."


def _general_safe(proof: GeneralProof) -> str:
    return (
        f"general ability (drift {proof.drift:+.2f} nats/token from the base on {proof.n} items, below "
        f"{proof.margin:.2f}; {proof.shortened} of {proof.answers} answers shortened)"
    )


def _harm_reason(level: LevelHarm) -> str:
    corrected = f"p = {level.p_holm:.2g} after correction"
    if level.of == "answers":
        return (
            f"More answers of {level.family} are empty, endless or repeating: {level.losses} newly and "
            f"{level.gains} no longer, of {level.n}, {corrected}."
        )
    return (
        f"{level.family} level {level.level} is worse: {level.gains} gains and {level.losses} losses "
        f"on {level.n} items, {corrected}."
    )
