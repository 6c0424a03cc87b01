"""A verdict for pipelines: better, not better, worse, or cannot tell, from the tests of one candidate against a base.

It is what the gate's decision rests on, said once more as one of four answers, each with an exit code. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import NormalDist
from typing import Any

from ratchet.evaluation.record import Metric
from ratchet.gate.decision import Evidence
from ratchet.gate.proof_values import ScoreProof, TargetProof
from ratchet.gate.reasons import refusal_reasons
from ratchet.gate.verdict_values import EXIT_CODES, Answer, Verdict
from ratchet.settings.judging import GateSettings
from ratchet.stats.power import connor_items
from ratchet.stats.proportions import Interval


def give_verdict(evidence: Evidence, settings: GateSettings, **known: Any) -> Verdict:
    """The verdict on the challenger. ``known`` are fields that the tests say nothing about: noise, conditions, notes.

    - worse: a target's 95 % interval is below 0, or a level or the answers of a task are proved worse;
    - better: a target is proved better, and nothing that is protected may be worse by its margin;
    - not better: every target's interval excludes a gain of ``gate.gain`` (of a loss, ``gate.loss_margin``);
    - cannot tell: all else.
    """
    unproved = refusal_reasons(evidence)
    harmed = [level for level in evidence.levels if level.harmed]
    fallen = [target for target in evidence.targets if target.interval is not None and target.interval.high < 0]
    needed = None
    if harmed or fallen:
        answer: Answer = "worse"
    elif not unproved:
        answer = "better"
    elif evidence.targets and all(_excludes_gain(target, settings) for target in evidence.targets):
        answer = "not better"
    else:
        answer, needed = "cannot tell", _items_needed(evidence, settings)
    return Verdict(
        verdict=answer,
        exit_code=EXIT_CODES[answer],
        candidate=evidence.challenger,
        base=evidence.champion,
        reasons=_reasons(answer, evidence, fallen, unproved, needed),
        items_needed=needed,
        alpha=evidence.alpha_k,
        gain=settings.gain,
        targets=evidence.targets,
        families=evidence.families,
        tasks=evidence.tasks,
        general=evidence.general,
        levels=evidence.levels,
        **known,
    )


def smallest_gain(metric: Metric, settings: GateSettings) -> float:
    """The gain that a verdict must be able to see: a share of the items, or nats per token of a loss."""
    return settings.loss_margin if metric == "loss" else settings.gain


def _excludes_gain(target: TargetProof, settings: GateSettings) -> bool:
    return target.interval is not None and target.interval.high < smallest_gain(target.metric, settings)


def _reasons(
    answer: Answer,
    evidence: Evidence,
    fallen: Sequence[TargetProof],
    unproved: Sequence[str],
    needed: int | None,
) -> tuple[str, ...]:
    said = [f"Proved worse{_place(target)}: {_interval(target)}." for target in fallen]
    if answer == "better":
        return tuple(
            f"Proved better{_place(target)}: {_interval(target)}." for target in evidence.targets if target.proved
        )
    if needed is not None:
        unproved = (*unproved, f"About {needed:,} items could tell.")
    return (*said, *unproved)


def _place(target: TargetProof) -> str:
    return f" on {target.task}" if target.task else ""


def _interval(target: TargetProof) -> str:
    unit, scale = ("nats/token", 1.0) if target.metric == "loss" else ("points", 100.0)
    interval = target.interval or Interval(low=-1.0, high=1.0, confidence=0.95)
    low, high = scale * interval.low, scale * interval.high
    return f"{scale * target.effect:+.3g} {unit} on {target.n:,} items, 95 % from {low:+.3g} to {high:+.3g}"


def _items_needed(evidence: Evidence, settings: GateSettings) -> int | None:
    """The items with which the tests that have not passed would, with the power of the settings."""
    wanted = [_target_items(target, settings) for target in evidence.targets if not target.proved]
    wanted += [proof.items_needed for proof in evidence.families if not proof.safe]
    wanted += [_score_items(proof, settings) for proof in evidence.tasks if not proof.safe]
    known = [count for count in wanted if count is not None]
    return max(known, default=None)


def _target_items(target: TargetProof, settings: GateSettings) -> int | None:
    gain = smallest_gain(target.metric, settings)
    if target.metric == "accuracy":
        differing = (target.gains or 0) + (target.losses or 0)
        share = max(gain, (differing + 1) / (target.n + 1 / settings.discordant_share))
        return connor_items(gain, share, target.alpha, settings.power)
    if target.interval is None or target.n < 2:
        return None
    half = (target.interval.high - target.interval.low) / 2
    return ceil(target.n * (half / gain) ** 2 * _surely(settings, target.alpha) / _surely(settings, 0.025, 0.5))


def _score_items(proof: ScoreProof, settings: GateSettings) -> int | None:
    margin = smallest_gain(proof.metric, settings) if proof.metric == "loss" else settings.margin
    distance = proof.effect - proof.lower_bound
    if proof.n < 2 or distance <= 0:
        return None
    return ceil(proof.n * (distance / margin) ** 2 * _surely(settings, 0.05) / _surely(settings, proof.alpha, 0.5))


def _surely(settings: GateSettings, alpha: float, power: float | None = None) -> float:
    """(z of 1 - alpha + z of the power)², to which the items that a test needs are proportional."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha) + normal.inv_cdf(power or settings.power)) ** 2
