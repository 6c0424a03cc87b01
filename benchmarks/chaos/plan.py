"""Which fault strikes in which round. It depends on the seed and on the faults that are possible here, so that a
journal can be continued.

A pass visits the segments in turn, and every fault of a segment ``repeats`` times in a random order; so each fault
comes up equally often, and a stack is started once for many rounds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count

from benchmarks.chaos.faults.fault import Fault


def plan(faults: Sequence[Fault], seed: int, repeats: int) -> Iterator[Fault]:
    """Without an end. The order of the segments is that of their first fault."""
    segments = list(dict.fromkeys(fault.segment for fault in faults))
    for number in count():
        dice = random.Random(f"{seed}/{number}")
        for segment in segments:
            cards = [fault for fault in faults if fault.segment == segment] * repeats
            dice.shuffle(cards)
            yield from cards
