from __future__ import annotations

from collections import Counter

import pytest
from datagen.refill import EMPTY, EMPTY_LAST_S, Done, affordable, allowance, choose, rest_s
from pydantic import ValidationError
from ratchet.settings.generation import GenerationSettings, SourceSettings


def test_between_batches_there_is_the_cooldown() -> None:
    assert rest_s([], 60.0) == 0
    assert rest_s([Done("submitted", 20.0)], 60.0) == 40.0
    assert rest_s([Done("submitted", 70.0)], 60.0) == 0


def test_what_cannot_be_made_is_asked_for_less_and_less() -> None:
    """The prior system retried every five minutes for ever."""
    pauses = [rest_s([Done(EMPTY, 0.0)] * times + [Done("submitted", 9.0)], 0.0) for times in (0, 1, 2, 3, 10)]
    assert pauses == [0.0, 60.0, 120.0, 240.0, EMPTY_LAST_S]


def test_the_hours_budget_cuts_the_last_batch_and_then_forbids() -> None:
    settings = GenerationSettings(hourly_examples=1_000)
    assert [allowance(400, made, settings) for made in (0, 700, 1_000, 1_200)] == [400, 300, 0, 0]
    assert allowance(400, 10**9, GenerationSettings()) == 400


def test_a_source_that_has_used_up_its_day_rests() -> None:
    paid = SourceSettings(name="teacher", daily_tokens=1_000)
    settings = GenerationSettings(sources=(SourceSettings(name="tasks"), paid))
    assert [source.name for source in affordable(settings, {"teacher": 999})] == ["tasks", "teacher"]
    assert [source.name for source in affordable(settings, {"teacher": 1_000})] == ["tasks"]


def test_a_seed_chooses_one_source_and_many_seeds_by_share() -> None:
    sources = (SourceSettings(name="tasks", share=3.0), SourceSettings(name="teacher"))
    drawn = Counter(choose(sources, seed).name for seed in range(2_000))
    assert 0.7 < drawn["tasks"] / 2_000 < 0.8
    assert choose(sources, 5) == choose(sources, 5)


def test_one_generator_is_named_once() -> None:
    with pytest.raises(ValidationError, match="names one generator twice"):
        GenerationSettings(sources=(SourceSettings(name="tasks"), SourceSettings(name="tasks")))
