"""Was mining worth it? The next checkpoint is asked the mined items again, and as many random ones beside them.

For every mined item a random problem of the same family and level is drawn, which no pool holds and no earlier set
had. If mined items are not failed more often than these, mining found noise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from random import Random

from pydantic import BaseModel, ConfigDict
from ratchet.data.example import Example
from ratchet.stats.proportions import Interval, newcombe
from ratchet.tasks import registry
from ratchet.tasks.family import to_example

from miner.mining import MinedItem

_PATIENCE = 200


class FollowUp(BaseModel):
    """Of ``mined`` items of the set of ``checkpoint``, ``mined_failed`` are still failed; likewise of random ones.

    ``excess`` is the interval (95 %, Newcombe) of the difference of the two shares; ``by_category`` has
    (failed, items) of each category.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    mined: int
    mined_failed: int
    random: int
    random_failed: int
    excess: Interval
    by_category: dict[str, tuple[int, int]]


def sample(items: Sequence[MinedItem], most: int, seed: int) -> list[MinedItem]:
    """At most so many of a set, by lot: only items whose family can make others like them."""
    known = [item for item in items if registry.find(item.example.family) is not None]
    return known if len(known) <= most else Random(f"{seed} retest").sample(known, most)


def controls(items: Sequence[MinedItem], forbidden: Container[str], seed: int) -> list[Example]:
    """A random problem of the same family and level for each item; none where a level gives no more."""
    random, seen, drawn = Random(f"{seed} control"), set[str](), []
    for item in items:
        family = registry.get(item.cell[0])
        for _ in range(_PATIENCE):
            problem = family.generate(item.example.level, random.getrandbits(48))
            if problem.key not in forbidden and problem.key not in seen:
                seen.add(problem.key)
                drawn.append(to_example(problem, "control"))
                break
    return drawn


def follow_up(
    checkpoint: str, items: Sequence[MinedItem], is_right: Sequence[bool], control_is_right: Sequence[bool]
) -> FollowUp | None:
    """The comparison; None where either side is empty."""
    if not items or not control_is_right:
        return None
    by_category: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for item, right in zip(items, is_right, strict=True):
        by_category[item.category][0] += not right
        by_category[item.category][1] += 1
    failed, control_failed = is_right.count(False), control_is_right.count(False)
    return FollowUp(
        checkpoint=checkpoint,
        mined=len(items),
        mined_failed=failed,
        random=len(control_is_right),
        random_failed=control_failed,
        excess=newcombe(failed, len(items), control_failed, len(control_is_right)),
        by_category={category: (bad, n) for category, (bad, n) in sorted(by_category.items())},
    )
