"""Up a ladder of levels: most for the first one not mastered, some replay below, a look ahead. Down it, in reverse."""

from __future__ import annotations

from collections.abc import Sequence

from datagen.arms.arm import Standing
from datagen.mix import Draft, Drafted, Level, normalised

_REASONS = {"lookahead": "the level after the frontier", "replay": "mastered, replayed against forgetting"}


class Progressive:
    """Each family's first unmastered level, its frontier, gets ``frontier_share`` of the family's weight, the one after
    it ``lookahead_share``, and mastered levels share the rest. Families weigh alike."""

    name = "progressive"
    purpose = "The first unmastered level gets most, the next one a little; mastered levels are replayed."

    def draft(self, standing: Standing) -> Draft:
        return _climbed(standing, {f: sorted(levels) for f, levels in standing.families.items()}, "first")


class Reverse:
    """As progressive, from the hardest unmastered level down."""

    name = "reverse"
    purpose = "The hardest unmastered level gets most, the one below it a little; mastered levels are replayed."

    def draft(self, standing: Standing) -> Draft:
        falling = {f: sorted(levels, reverse=True) for f, levels in standing.families.items()}
        return _climbed(standing, falling, "hardest")


def _climbed(standing: Standing, ladders: dict[str, list[int]], which: str) -> Draft:
    reasons = _REASONS | {"frontier": f"the {which} level not mastered"}
    draft: dict[Level, Drafted] = {}
    for family, rungs in ladders.items():
        roles = _roles(standing, family, rungs)
        for level, weight in _weights(standing, roles).items():
            draft[family, level] = Drafted(weight, roles[level], reasons[roles[level]])
    return draft


def _roles(standing: Standing, family: str, rungs: Sequence[int]) -> dict[int, str]:
    """Roles of the levels in the mix. A level beyond the look-ahead has none until its turn comes."""
    unmastered = [level for level in rungs if not standing.mastery.is_mastered(family, level)]
    replayed = {level: "replay" for level in rungs if level not in unmastered}
    return replayed | dict(zip(unmastered, ("frontier", "lookahead"), strict=False))


def _weights(standing: Standing, roles: dict[int, str]) -> dict[int, float]:
    """Weights within one family, adding up to 1; the share of a role that nobody has goes to the others."""
    settings = standing.settings
    shares = {
        "frontier": settings.frontier_share,
        "lookahead": settings.lookahead_share,
        "replay": 1 - settings.frontier_share - settings.lookahead_share,
    }
    held = list(roles.values())
    return normalised({level: shares[role] / held.count(role) for level, role in roles.items()})
