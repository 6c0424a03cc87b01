"""How many of a task's rows to hold out, and what a gain has to be to be proved on them.

Sizes follow from the number of rows and the metric. With few rows half are held out, with many a fifth. ``confirm``,
on which the gate decides, gets most of them: a screen of a handful of items proves nothing, so none are spent on one.
numpy and scipy are imported on the first call.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ratchet.evaluation.record import Metric
from ratchet.settings.judging import GateSettings

if TYPE_CHECKING:
    from ratchet.evaluation.suite import Pool

LARGEST_SHARE = 0.5
"""Of few rows, the share that is held out: more would leave too little to learn from."""

HELD_OUT_AT_FIRST, SHARE_OF_MORE = 80, 0.2
"""Of many rows: this number, and this share of all of them."""

FEWEST_FOR_EVAL, FEWEST_FOR_PROBE = 100, 500
"""Held-out rows from which on eval and probe get a fifth of them. Eval ranks the checkpoints; a probe of a hundred
items directs mining and curriculum."""

SPREADS: dict[Metric, float] = {"loss": 0.2, "judge": 0.5}
"""Assumed standard deviation of the paired differences: nats per token between a base and a model trained on a few
hundred rows; preferences of a judge that gives a third of the items to each side and a third to none."""

MOST_ROWS = 10_000_000


class SplitPlan(BaseModel):
    """Numbers of rows for training and for each pool.

    ``smallest_gain`` is the true gain that the first challenge proves with ``power``: a share of the items for accuracy
    and judge, nats per token for loss; None if nothing can be proved. ``confirm_to_halve`` confirm items, from
    ``rows_to_halve`` rows, prove half of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    metric: Metric
    train: int
    probe: int
    eval: int
    confirm: int
    power: float
    smallest_gain: float | None
    confirm_to_halve: int | None
    rows_to_halve: int | None

    @property
    def held_out(self) -> int:
        return self.probe + self.eval + self.confirm

    @property
    def sizes(self) -> dict[Pool, int]:
        """Items by pool."""
        return {"probe": self.probe, "eval": self.eval, "confirm": self.confirm}

    @property
    def smallest_gain_text(self) -> str:
        """The gain in the metric's unit, such as ``20 points`` or ``0.12 nats a token``."""
        return "nothing" if self.smallest_gain is None else gain_text(self.smallest_gain, self.metric)

    def sentences(self) -> list[str]:
        """What can be proved, and how many rows would prove half of it, for `ratchet init` and `ratchet data add`."""
        if self.smallest_gain is None or self.rows_to_halve is None:
            return [
                f"Nothing can be proved on {self.confirm} held-out rows: no gain on this task can deploy a checkpoint.",
                f"From {fewest_rows(self.metric)} rows on, a large gain can be proved.",
            ]
        return [
            f"On {self.confirm} held-out rows a gain of {self.smallest_gain_text} or more is proved with a chance of "
            f"{self.power:.0%}.",
            f"With {self.rows_to_halve:,} rows, half of it is.",
        ]

    def as_values(self) -> dict[str, Any]:
        """For JSON."""
        return self.model_dump(mode="json")


def gain_text(gain: float, metric: Metric) -> str:
    """A difference of scores in the metric's unit."""
    return f"{gain:.2f} nats a token" if metric == "loss" else f"{100 * gain:.0f} points"


def plan_split(
    rows: int,
    metric: Metric,
    gate: GateSettings,
    *,
    targets: int = 1,
    most_probe: int = 300,
    most_eval: int = 300,
    most_confirm: int = 900,
) -> SplitPlan:
    """The sizes for ``rows`` distinct rows, none of them a near-duplicate of another.

    ``targets`` counts the targets of the gate, among which the first challenge's alpha is divided: all tasks of metric
    accuracy are one, each other task is one.
    """
    most = (most_probe, most_eval, most_confirm)
    probe, eval_, confirm = pool_sizes(rows, *most)
    alpha = _first_alpha(gate, targets)
    gain = smallest_provable(confirm, metric, gate.discordant_share, alpha, gate.power)
    to_halve = _items_for(gain / 2, metric, gate.discordant_share, alpha, gate.power) if gain is not None else None
    return SplitPlan(
        rows=rows,
        metric=metric,
        train=rows - probe - eval_ - confirm,
        probe=probe,
        eval=eval_,
        confirm=confirm,
        power=gate.power,
        smallest_gain=gain,
        confirm_to_halve=to_halve,
        rows_to_halve=_rows_for(to_halve) if to_halve is not None else None,
    )


def pool_sizes(rows: int, most_probe: int, most_eval: int, most_confirm: int) -> tuple[int, int, int]:
    """Items of probe, eval and confirm: of few held-out rows a tenth each for probe and eval, of more a fifth."""
    held = min(int(rows * LARGEST_SHARE), int(HELD_OUT_AT_FIRST + SHARE_OF_MORE * rows))
    if held < 3:
        return 0, 0, 0
    probe = max(1, held // (10 if held < FEWEST_FOR_PROBE else 5))
    eval_ = max(1, held // (10 if held < FEWEST_FOR_EVAL else 5))
    return min(most_probe, probe), min(most_eval, eval_), min(most_confirm, held - probe - eval_)


@cache
def smallest_provable(
    confirm: int, metric: Metric, discordant_share: float, alpha: float, power: float
) -> float | None:
    """The smallest true gain that this many confirm items prove with ``power``; None if they can prove none."""
    from ratchet.stats.paired_scores import BOUNDS, smallest_gain
    from ratchet.stats.power import smallest_detectable

    if confirm < 1:
        return None
    if metric == "accuracy":
        return smallest_detectable(confirm, discordant_share, alpha, power)
    return smallest_gain(confirm, SPREADS[metric], alpha, power, BOUNDS[metric])


def _items_for(gain: float, metric: Metric, discordant_share: float, alpha: float, power: float) -> int:
    """Confirm items that prove this gain, about."""
    from ratchet.stats.paired_scores import BOUNDS, scores_needed
    from ratchet.stats.power import connor_items

    if metric == "accuracy":
        return connor_items(gain, max(discordant_share, gain), alpha, power)
    return scores_needed(gain, SPREADS[metric], alpha, power, BOUNDS[metric])


def _first_alpha(gate: GateSettings, targets: int) -> float:
    from ratchet.stats.paired_tests import alpha_spent

    return alpha_spent(gate.alpha, 1) / max(1, targets)


def _rows_for(confirm: int) -> int:
    """The fewest rows of which at least this many are for confirm, if the pools' largest sizes allow it."""
    low, high = 0, MOST_ROWS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if pool_sizes(middle, MOST_ROWS, MOST_ROWS, MOST_ROWS)[2] >= confirm else (middle, high)
        )
    return high


def fewest_rows(metric: Metric, gate: GateSettings | None = None) -> int:
    """The fewest rows with which anything can be proved."""
    settings = gate or GateSettings()
    alpha = _first_alpha(settings, 1)
    confirm = next(
        n for n in range(1, 1_000) if smallest_provable(n, metric, settings.discordant_share, alpha, settings.power)
    )
    return _rows_for(confirm)
