"""The free screen on the eval suite: is a checkpoint promising enough to spend a challenge on?

It spends no error, because passing it proves nothing: the confirm suite decides on items that the screen never saw.
"""

from __future__ import annotations

from ratchet.evaluation.paired_outcomes import OutcomeTable, outcome_table, total_of
from ratchet.evaluation.record import Evaluation
from ratchet.settings.gate import GateSettings
from ratchet.stats.paired_tests import mcnemar_better

from deployer.gate import find_harm
from deployer.proof import LevelHarm, Value


class Screen(Value):
    """Whether to open the confirm suite, with the numbers and the reason."""

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
    return screen_flips(table, champion.checkpoint_id, challenger.checkpoint_id, settings)


def screen_flips(table: OutcomeTable, champion: str, challenger: str, settings: GateSettings) -> Screen:
    """The screen from the flips alone."""
    total = total_of(table)
    p = float(mcnemar_better(total.gains, total.losses))
    harmed = tuple(level for level in find_harm(table, settings.harm_alpha) if level.harmed)
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
        reason=_reason(total.effect, p, settings.screen_alpha, harmed),
    )


def _reason(effect: float, p: float, alpha: float, harmed: tuple[LevelHarm, ...]) -> str:
    if harmed:
        worse = ", ".join(f"{level.family} level {level.level}" for level in harmed)
        return f"Already worse on the eval suite in {worse}."
    if p > alpha:
        return f"Not promising on the eval suite: {effect:+.1%}, p = {p:.2g} above {alpha:.2g}."
    return f"Promising on the eval suite: {effect:+.1%}, p = {p:.2g}."
