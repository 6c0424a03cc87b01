"""Model soups: the average of a few good checkpoints' weights, as a candidate like any other.

Uniform soup of the best (Wortsman et al., ICML 2022): neighbours on one line of training often average into one that
is better than each of them, and costs no more to run. Which go in is read off the ranking. Whether it is any good is
not assumed but tested, and the confirm items that decide on it took no part in choosing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

SEPARATOR = "+"


def ingredients(entries: Sequence[Mapping[str, Any]], eligible: Collection[str], most: int) -> tuple[str, ...]:
    """The best checkpoints of a ranking's leading group, ``most`` at most, in the order of their ids.

    ``eligible`` are those that may go in: kept, trained, and no soups themselves. Empty where fewer than two are left.
    """
    leading = [str(e["checkpoint_id"]) for e in entries if e["is_tied_with_best"] and e["checkpoint_id"] in eligible]
    return tuple(sorted(leading[:most])) if len(leading) >= 2 else ()


def soup_name(checkpoint_ids: Sequence[str]) -> str:
    """One name for one set of ingredients: ``c0006-a1b2c3+c0007-3fa9c2``."""
    return SEPARATOR.join(checkpoint_ids)


def parts(name: str) -> list[str]:
    """The inverse of soup_name."""
    return name.split(SEPARATOR)
