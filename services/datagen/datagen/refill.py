"""When a refill may begin, who makes it, and how large it may be: decisions as values, from what was done before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from random import Random

from ratchet.backoff import pause_s
from ratchet.settings.generation import GenerationSettings, SourceSettings

EMPTY = "nothing made"
"""Outcome of a refill that came to no example."""

DEAD = "dead letter"
"""Stands for a refill that was given up after its tries."""

EMPTY_FIRST_S, EMPTY_LAST_S = 60.0, 3_600.0


@dataclass(frozen=True)
class Done:
    """A refill that was dealt with, so many seconds ago."""

    outcome: str
    age_s: float


def rest_s(done: Sequence[Done], cooldown_s: float) -> float:
    """Seconds until the next refill may begin; ``done`` has the newest first.

    After refills that came to nothing the pause doubles with each, from one minute to an hour: what cannot be made is
    not asked for again and again. One that died alone may have had a bad seed, and holds the next one up no longer.
    """
    if not done:
        return 0.0
    run = [one.outcome for one in takewhile(lambda one: one.outcome in (EMPTY, DEAD), done)]
    empty = len(run) - (DEAD in run)
    empty_s = pause_s(empty, EMPTY_FIRST_S, EMPTY_LAST_S) if empty else 0.0
    return max(0.0, max(empty_s, cooldown_s) - done[0].age_s)


def allowance(wanted: int, made_within_the_hour: int, settings: GenerationSettings) -> int:
    """Examples that the next batch may have: what is wanted, or what the hour leaves."""
    if settings.hourly_examples is None:
        return wanted
    return max(0, min(wanted, settings.hourly_examples - made_within_the_hour))


def affordable(settings: GenerationSettings, used_today: Mapping[str, int]) -> list[SourceSettings]:
    """The sources that have not used up their tokens of the day."""
    return [
        source
        for source in settings.sources
        if source.daily_tokens is None or used_today.get(source.name, 0) < source.daily_tokens
    ]


def choose(sources: Sequence[SourceSettings], seed: int) -> SourceSettings:
    """The source of the batch with this seed."""
    return Random(f"{seed} source").choices(sources, [source.share for source in sources])[0]
