"""The screen: whether a candidate's eval records are worth a challenge. It spends no error, since it proves nothing.

Each target has its statistic of the gate, at ``gate.screen_alpha``. Eval items that would let a real gain pass less
often than a coin decide nothing: on those it is enough that the candidate is not worse, because the confirm suite
decides, and a gain that a screen of fifteen items has missed would never be served.
"""

from __future__ import annotations

from functools import cache

from ratchet.evaluation.paired_outcomes import OutcomeTable, ScoreTable, outcome_table, score_table
from ratchet.evaluation.record import GENERAL, Evaluation, Metric
from ratchet.gate.proof_values import FrozenModel, LevelHarm, TargetProof
from ratchet.gate.proofs import HARM_ALPHA, find_harm, prove_graded, prove_scores
from ratchet.gate.reasons import effect_text
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_scores import BOUNDS, smallest_gain
from ratchet.stats.power import superiority_power
from ratchet.stats.split_plan import SPREADS

SEEN_AT_LEAST = 0.5
"""Chance with which a screen has to pass a real gain for its p-value to count."""

REAL_GAINS: dict[Metric, float] = {"accuracy": 0.1, "loss": 0.1, "judge": 0.1}
"""A gain that a screen should pass: shares of the items, nats per token. With the default settings the p-value counts
from 43 graded, 19 scored or 64 judged items on."""


class TargetScreen(FrozenModel):
    """One target on the eval suite. ``decides``: whether the items are enough for the p-value to count."""

    target: TargetProof
    decides: bool
    passes: bool


class Screen(FrozenModel):
    """Whether to open a challenge, with the numbers and the reason."""

    champion: str
    challenger: str
    alpha: float
    targets: tuple[TargetScreen, ...]
    harmed: tuple[LevelHarm, ...]
    is_worth_opening: bool
    reason: str


def screen(champion: Evaluation, challenger: Evaluation, settings: GateSettings) -> Screen:
    """Compare two eval records. Raises NotComparable or EmptyEvaluation."""
    table, scores = outcome_table(champion, challenger), score_table(champion, challenger)
    return screen_outcomes(table, champion.checkpoint_id, challenger.checkpoint_id, settings, scores)


def screen_outcomes(
    table: OutcomeTable, champion: str, challenger: str, settings: GateSettings, scores: ScoreTable = ()
) -> Screen:
    """As ``screen``, from paired outcomes."""
    alpha = settings.screen_alpha
    proofs = [prove_graded(table, alpha)] if table else []
    proofs += [prove_scores(task, alpha, with_interval=False) for task in scores if task.family != GENERAL]
    targets = tuple(_screened(proof, settings) for proof in proofs)
    harmed = tuple(level for level in find_harm(table, HARM_ALPHA, scores) if level.harmed)
    return Screen(
        champion=champion,
        challenger=challenger,
        alpha=alpha,
        targets=targets,
        harmed=harmed,
        is_worth_opening=not harmed and (not targets or any(target.passes for target in targets)),
        reason=_reason(targets, alpha, harmed),
    )


def _screened(proof: TargetProof, settings: GateSettings) -> TargetScreen:
    decides = can_screen(proof.n, proof.metric, settings.discordant_share, settings.screen_alpha)
    is_not_worse = proof.n > 0 and proof.effect >= 0
    return TargetScreen(target=proof, decides=decides, passes=proof.proved if decides else is_not_worse)


@cache
def can_screen(n: int, metric: Metric, discordant_share: float, alpha: float) -> bool:
    """Whether a screen of n items passes a real gain at least as often as a coin would."""
    gain = REAL_GAINS[metric]
    if metric == "accuracy":
        return superiority_power(n, gain, max(discordant_share, gain), alpha) >= SEEN_AT_LEAST
    seen = smallest_gain(n, SPREADS[metric], alpha, SEEN_AT_LEAST, BOUNDS[metric])
    return seen is not None and seen <= gain


def _reason(targets: tuple[TargetScreen, ...], alpha: float, harmed: tuple[LevelHarm, ...]) -> str:
    if harmed:
        worse = ", ".join(f"{level.family} level {level.level}" for level in harmed)
        return f"Worse on the eval suite in {worse}."
    if not targets:
        return "The eval suite has no items of a target: the confirm suite decides."
    passing = [target for target in targets if target.passes]
    told = [_words(target) for target in passing or targets]
    if not passing:
        level = f", above {alpha:.2g}" if targets[-1].target.n else ""
        return f"Not promising on the eval suite: {'; '.join(told)}{level}."
    return f"Promising on the eval suite: {'; '.join(told)}."


def _words(screened: TargetScreen) -> str:
    target = screened.target
    place = f"{target.task} " if target.task else ""
    if not target.n:
        return f"{place}has no item with a score in both records"
    few = "" if screened.decides else f" ({target.n} items are too few for a screen)"
    return f"{place}{effect_text(target.effect, target.metric)}, p = {target.p:.2g}{few}"
