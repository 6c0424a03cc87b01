"""Power and sample sizes of a paired comparison of n items, and whether a gate's suites are large enough.

Exact power sums over every likely outcome: the number of items that differ is binomial, and so is the number of gains
among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import ceil, prod, sqrt
from statistics import NormalDist

import numpy as np
import scipy
from pydantic import BaseModel, ConfigDict

from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_tests import alpha_spent, tango_z

NEGLIGIBLE = 1e-12
LUCK = np.linspace(-6, 6, 241)
LUCK_WEIGHT = np.exp(-(LUCK**2) / 2) / np.exp(-(LUCK**2) / 2).sum()
MIN_ITEMS = 50
MAX_ITEMS = 10_000_000
"""The largest suite considered; beyond it the power hardly increases."""
SAFETY_ALPHA = 0.05
"""Level of each protected family's non-inferiority test."""
PROTECTED_DISCORDANT_SHARE = 0.05
"""Assumed share of discordant items on mastered levels, where different grades of two checkpoints are rare."""
CHALLENGES = 10
"""Challenges of one champion within which a gain should be detected. Later ones may spend almost none of alpha."""
CHALLENGE_CORRELATION = 0.5
"""Assumed correlation of successive challenges, which share the items and the training run."""
CERTAIN = 4  # times the planned size; beyond it power is practically 1 and not worth computing


@cache
def superiority_power(n: int, gain: float, discordant_share: float, alpha: float) -> float:
    """Probability that McNemar's one-sided test finds a model better that is truly better by ``gain``.

    The models differ on ``discordant_share`` of the n items.
    """
    discordant = np.arange(n + 1)
    fewest_gains = scipy.stats.binom.isf(alpha, discordant, 0.5) + 1
    won_share = (discordant_share + gain) / (2 * discordant_share)
    return float(
        scipy.stats.binom.pmf(discordant, n, discordant_share)
        @ scipy.stats.binom.sf(fewest_gains - 1, discordant, won_share)
    )


def connor_items(gain: float, discordant_share: float, alpha: float, power: float) -> int:
    """Connor's sample size (Biometrics 43:207-211, 1987), slightly too small for the exact test."""
    normal = NormalDist()
    spread = normal.inv_cdf(1 - alpha) * sqrt(discordant_share) + normal.inv_cdf(power) * sqrt(
        discordant_share - gain**2
    )
    return ceil((spread / gain) ** 2)


def smallest_detectable(n: int, discordant_share: float, alpha: float, power: float) -> float | None:
    """The smallest true difference that is detected with ``power``, to a tenth of a percentage point.

    A difference cannot exceed the share of discordant items, so where discordant items are rarer than the answer they
    are as many as it. None where not even a difference on every item would be seen.
    """
    low, high = 0, 1001
    while high - low > 1:
        middle = (low + high) // 2
        difference = middle / 1000
        seen = superiority_power(n, difference, max(discordant_share, difference), alpha) >= power
        low, high = (low, middle) if seen else (middle, high)
    return None if high > 1000 else high / 1000


def items_needed(discordant_share: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items for an equal model to pass with about ``power``: (z_alpha + z_power)^2 * discordant_share / margin^2.

    At 5 % and 80 % the square is 6.18. Where discordant items are few the exact power is a little lower (73 % at 194
    items).
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)
    return max(ceil(z * z * discordant_share / margin**2), min_items(margin, alpha))


def affordable_alpha(n: int, discordant_share: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The level at which an equal model passes with about ``power`` on n items: ``alpha`` from items_needed on.

    With fewer items it increases to keep both errors in balance, up to 1 - power, so that for any n a model that is
    worse by the margin is still refused with probability ``power``.
    """
    if n >= items_needed(discordant_share, margin, alpha, power):
        return alpha
    normal = NormalDist()
    balanced = 1 - normal.cdf(margin * sqrt(n / discordant_share) - normal.inv_cdf(power))
    return min(max(balanced, alpha), 1 - power)


def min_items(margin: float, alpha: float = 0.05) -> int:
    """The minimum number of items with which a model without any differing item passes."""
    z = NormalDist().inv_cdf(1 - alpha)
    return ceil(z * z * (1 - margin) / margin)


@cache
def noninferiority_power(
    n: int, discordant_share: float, margin: float, alpha: float = 0.05, difference: float = 0.0
) -> float:
    """Exact probability to pass at a true ``difference``, by summing over every likely outcome of n items.

    With ``difference = -margin`` it is the test's actual level.
    """
    if n == 0:
        return 0.0
    total = np.arange(int(scipy.stats.binom.isf(NEGLIGIBLE, n, discordant_share)) + 1)
    discordant, gains = np.meshgrid(total, total, indexing="ij")
    possible = gains <= discordant
    z = np.where(possible, tango_z(gains, np.where(possible, discordant - gains, 0), n, -margin), -np.inf)
    passes = z >= -scipy.special.ndtri(alpha)
    fewest_gains = np.where(passes.any(axis=1), passes.argmax(axis=1), n + 1)
    won_share = (discordant_share + difference) / (2 * discordant_share)
    return float(
        scipy.stats.binom.pmf(total, n, discordant_share) @ scipy.stats.binom.sf(fewest_gains - 1, total, won_share)
    )


class GatePower(BaseModel):
    """The power of a gate as planned.

    ``adequate`` is what `ratchet config check` asks for, ``advice`` says the way out. ``per_challenge`` is the chance
    of the k-th challenge alone to prove the stated gain and every protected family's safety, ``within`` the chance
    that one of the planned challenges does. ``items_needed`` is the smallest suite of the same proportions that would
    do; None where no size would, as for very many protected families.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int
    items_needed: int | None
    per_challenge: tuple[float, ...]
    within: float
    adequate: bool
    advice: str


def gate_power(settings: GateSettings, items: int, protected_items: Mapping[str, int] | None = None) -> GatePower:
    """Power at ``settings.gain`` of a confirm suite of ``items``, with the given numbers for each protected family.

    This assumes equal records on every protected family, with all levels mastered.
    """
    families = dict(protected_items or {})
    per_challenge = _per_challenge(settings, items, families)
    within = within_challenges(per_challenge, CHALLENGE_CORRELATION)
    pool = pool_items(settings)
    short = {name: n for name, n in sorted(families.items()) if n < pool}
    adequate = within >= settings.power and not short
    needed = items if adequate else _items_needed(settings, items, families)
    return GatePower(
        items=items,
        items_needed=needed,
        per_challenge=per_challenge,
        within=within,
        adequate=adequate,
        advice=_advice(settings, items, within, needed, short),
    )


def pool_items(settings: GateSettings) -> int:
    """Number of items of mastered levels from which the full non-inferiority test applies to a protected family."""
    return items_needed(PROTECTED_DISCORDANT_SHARE, settings.margin, SAFETY_ALPHA, settings.power)


def within_challenges(per_challenge: tuple[float, ...], correlation: float) -> float:
    """Probability that at least one challenge succeeds if their normal scores have this correlation.

    One-factor model: given the common factor the challenges are independent; the factor is integrated numerically.
    """
    single = np.clip(np.asarray(per_challenge), 1e-12, 1 - 1e-12)
    given_luck = scipy.special.ndtr(
        (scipy.special.ndtri(single)[:, None] + sqrt(correlation) * LUCK) / sqrt(1 - correlation)
    )
    return float(LUCK_WEIGHT @ (1 - np.prod(1 - given_luck, axis=0)))


def _per_challenge(settings: GateSettings, items: int, families: Mapping[str, int]) -> tuple[float, ...]:
    discordant, margin = PROTECTED_DISCORDANT_SHARE, settings.margin
    certain = CERTAIN * pool_items(settings)
    safety = prod(noninferiority_power(min(n, certain), discordant, margin, SAFETY_ALPHA) for n in families.values())
    levels = [alpha_spent(settings.alpha, k) for k in range(1, CHALLENGES + 1)]
    seen = min(items, CERTAIN * connor_items(settings.gain, settings.discordant_share, levels[-1], settings.power))
    return tuple(safety * superiority_power(seen, settings.gain, settings.discordant_share, a) for a in levels)


def _items_needed(settings: GateSettings, items: int, families: Mapping[str, int]) -> int | None:
    """The smallest size that is adequate with every family grown in proportion, found in steps of one twentieth."""
    shares = {name: max(n, 1) / max(items, 1) for name, n in families.items()}
    size = ceil(max([MIN_ITEMS, *(pool_items(settings) / share for share in shares.values())]))
    while size <= MAX_ITEMS:
        chances = _per_challenge(settings, size, {name: int(share * size) for name, share in shares.items()})
        if within_challenges(chances, CHALLENGE_CORRELATION) >= settings.power:
            return size
        size += size // 20
    return None


def _advice(settings: GateSettings, items: int, within: float, needed: int | None, short: dict[str, int]) -> str:
    sentences = [
        f"Family {family} has {n} confirm items; to prove it no worse than {settings.margin:.1%} takes "
        f"{pool_items(settings)}."
        for family, n in short.items()
    ]
    if within < settings.power:
        sentences.append(
            f"{items} confirm items prove a gain of {settings.gain:.1%} within {CHALLENGES} challenges with "
            f"a probability of {within:.0%}, not {settings.power:.0%}."
        )
    if not sentences:
        return "The suites are large enough for this gate."
    if needed is None:
        sentences.append(
            "No number of items is enough: lower gate.power, widen gate.margin, or set a larger gate.gain."
        )
    else:
        sentences.append(
            f"Use {needed} confirm items in the same proportions, widen gate.margin, or set a larger gate.gain."
        )
    return " ".join(sentences)
