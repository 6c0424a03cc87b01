"""Whether the gate can see what it is asked to see with the suites it has, and which sizes would do."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod, sqrt

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.special import ndtr, ndtri

from ratchet.settings.gate import GateSettings
from ratchet.stats.noninferiority import fewest_items, items_needed, noninferiority_power
from ratchet.stats.power import connor_items, superiority_power
from ratchet.stats.spending import alpha_spent

LUCK = np.linspace(-6, 6, 241)
LUCK_WEIGHT = np.exp(-(LUCK**2) / 2) / np.exp(-(LUCK**2) / 2).sum()
LEAST_ITEMS = 50
MOST_ITEMS = 10_000_000
"""Beyond it no suite is looked for: the chance to meet the plan does not grow any more."""
CERTAIN = 4  # times the planned size: beyond it power is 1 in all but name, and is not worth computing


class GatePower(BaseModel):
    """The power of a gate as planned.

    ``adequate`` is what `ratchet config check` asks for, ``advice`` says the way out. ``per_challenge`` is the chance
    of the k-th challenge alone to prove the stated gain and every protected family's safety, ``within`` the chance
    that one of the planned challenges does. ``short_families`` hold fewer confirm items, over all their levels, than
    ``family_items_needed``; below ``family_items_least`` no result could prove them safe. ``items_needed`` is the
    smallest suite of the same proportions that would do; None where no size would, as for very many protected families.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int
    items_needed: int | None
    per_challenge: tuple[float, ...]
    within: float
    family_items_needed: int
    family_items_least: int
    short_families: dict[str, int]
    adequate: bool
    advice: str


def gate_power(settings: GateSettings, items: int, protected_items: Mapping[str, int] | None = None) -> GatePower:
    """Power at ``settings.gain`` of a confirm suite of ``items``, of which each protected family has so many.

    Planned for an equal record on every protected family, all levels of which are mastered.
    """
    families = dict(protected_items or {})
    per_challenge = _per_challenge(settings, items, families)
    within = within_challenges(per_challenge, settings.challenge_correlation)
    pool = pool_items(settings)
    short = {name: n for name, n in sorted(families.items()) if n < pool}
    adequate = within >= settings.power and not short
    needed = items if adequate else _items_needed(settings, items, families)
    return GatePower(
        items=items,
        items_needed=needed,
        per_challenge=per_challenge,
        within=within,
        family_items_needed=pool,
        family_items_least=fewest_items(settings.margin, settings.safety_alpha),
        short_families=short,
        adequate=adequate,
        advice=_advice(settings, items, within, needed, short),
    )


def pool_items(settings: GateSettings) -> int:
    """Items of mastered levels from which a protected family is held to the full non-inferiority test."""
    return items_needed(settings.protected_flip_share, settings.margin, settings.safety_alpha, settings.power)


def within_challenges(per_challenge: tuple[float, ...], correlation: float) -> float:
    """Chance that at least one challenge succeeds when their normal scores share ``correlation`` of their luck.

    One-factor model: given the common luck the challenges are independent; the luck is averaged out numerically.
    """
    single = np.clip(np.asarray(per_challenge), 1e-12, 1 - 1e-12)
    given_luck = ndtr((ndtri(single)[:, None] + sqrt(correlation) * LUCK) / sqrt(1 - correlation))
    return float(LUCK_WEIGHT @ (1 - np.prod(1 - given_luck, axis=0)))


def _per_challenge(settings: GateSettings, items: int, families: Mapping[str, int]) -> tuple[float, ...]:
    flips, margin = settings.protected_flip_share, settings.margin
    certain = CERTAIN * pool_items(settings)
    safety = prod(
        noninferiority_power(min(n, certain), flips, margin, settings.safety_alpha) for n in families.values()
    )
    levels = [alpha_spent(settings.alpha, k) for k in range(1, settings.challenges + 1)]
    seen = min(items, CERTAIN * connor_items(settings.gain, settings.flip_share, levels[-1], settings.power))
    return tuple(safety * superiority_power(seen, settings.gain, settings.flip_share, a) for a in levels)


def _items_needed(settings: GateSettings, items: int, families: Mapping[str, int]) -> int | None:
    """The smallest size that is adequate with every family grown in proportion, found in steps of one twentieth."""
    shares = {name: max(n, 1) / max(items, 1) for name, n in families.items()}
    size = ceil(max([LEAST_ITEMS, *(pool_items(settings) / share for share in shares.values())]))
    while size <= MOST_ITEMS:
        chances = _per_challenge(settings, size, {name: int(share * size) for name, share in shares.items()})
        if within_challenges(chances, settings.challenge_correlation) >= settings.power:
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
            f"{items} confirm items prove a gain of {settings.gain:.1%} within {settings.challenges} challenges with "
            f"a chance of {within:.0%}, not {settings.power:.0%}."
        )
    if not sentences:
        return "The suites are large enough for this gate."
    if needed is None:
        sentences.append(
            "No number of items would do: lower gate.power, widen gate.margin, or state a larger gate.gain."
        )
    else:
        sentences.append(
            f"Use {needed} confirm items in the same proportions, widen gate.margin, or state a larger gate.gain."
        )
    return " ".join(sentences)
