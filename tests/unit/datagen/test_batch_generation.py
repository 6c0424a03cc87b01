from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from datagen.batch_generation import (
    EMPTY,
    EMPTY_LAST_S,
    FinishedRefill,
    affordable_sources,
    allowed_examples,
    choose_source,
    generate_batch,
    pause_before_next_s,
)
from pydantic import ValidationError
from ratchet.errors import DataError, UnknownPlugin
from ratchet.evaluation.suite import hold_out
from ratchet.settings.data import GenerationSettings, SourceSettings
from ratchet.tasks import registry
from ratchet.tasks.graders import grade_example

MIX = [("chain_sum", 2, 3.0), ("reverse", 1, 1.0), ("sort_digits", 3, 0.0)]
FAMILIES = {name: registry.get(name) for name in ("chain_sum", "reverse")}
HELD = hold_out(FAMILIES, [("chain_sum", 1), ("chain_sum", 2), ("reverse", 1)], seed=3)
SMALL = {FAMILIES["chain_sum"].generate(1, seed).key for seed in range(8000)}
"""Keys of the level with 500 items."""
USABLE = sum(key not in HELD for key in SMALL)


def test_a_seed_makes_one_batch() -> None:
    lines = [[e.to_line() for e in generate_batch(MIX, 300, seed, HELD, 9)] for seed in (1, 1, 2)]
    assert lines[0] == lines[1]
    assert lines[0] != lines[2]


def test_examples_are_true_and_none_is_held_out() -> None:
    examples = list(generate_batch(MIX, 500, 1, HELD, 9))
    assert len(examples) == 500
    assert not any(example.metadata["key"] in HELD for example in examples)
    assert all(grade_example(example, example.answer or "").correct for example in examples)
    assert {example.metadata["source"] for example in examples} == {"generation"}


def test_the_mix_is_kept_and_the_levels_are_mixed() -> None:
    batch = generate_batch(MIX, 2000, 1, (), 9)
    examples = list(batch)
    assert batch.report.made.keys() == {"chain_sum/2", "reverse/1"}
    assert 0.7 < batch.report.made["chain_sum/2"] / 2000 < 0.8
    assert {example.family for example in examples[:40]} == {"chain_sum", "reverse"}


def test_an_exhausted_level_ends_and_the_others_go_on() -> None:
    batch = generate_batch([("chain_sum", 1, 9.0), ("reverse", 2, 1.0)], 3000, 1, HELD, epoch_cap=2)
    uses = Counter(str(example.metadata["key"]) for example in batch if example.family == "chain_sum")
    report = batch.report
    assert report.examples == 3000
    assert report.exhausted == ("chain_sum/1",)
    assert set(uses.values()) <= {1, 2}
    assert 1.8 * USABLE < report.made["chain_sum/1"] <= 2 * USABLE
    assert report.repeated >= report.made["chain_sum/1"] - USABLE


def test_a_batch_of_exhausted_levels_is_short_and_reports_them() -> None:
    batch = generate_batch([("chain_sum", 1, 1.0)], 3000, 1, HELD, epoch_cap=1)
    made = list(batch)
    assert 0.9 * USABLE < len(made) <= USABLE
    assert (batch.report.wanted, batch.report.examples) == (3000, len(made))
    assert batch.report.exhausted == ("chain_sum/1",)
    assert batch.report.refused["held_out"] > 0
    assert batch.report.refused["used_up"] >= 300


def test_earlier_uses_count_towards_the_cap() -> None:
    batch = generate_batch([("chain_sum", 1, 1.0)], 100, 1, (), epoch_cap=5, uses=lambda _: 5)
    assert list(batch) == []
    assert batch.report.exhausted == ("chain_sum/1",)


def test_an_endless_level_gives_no_item_twice() -> None:
    examples = list(generate_batch([("rg:spell_backward", 1, 1.0)], 100, 1, (), epoch_cap=50))
    assert max(Counter(example.metadata["key"] for example in examples).values()) == 1


def test_a_batch_streams() -> None:
    batch = generate_batch(MIX, 10**9, 1, HELD, 9)
    assert len(list(islice(batch, 10))) == 10
    assert batch.report.examples == 10


def test_a_mix_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no level"):
        generate_batch([("chain_sum", 1, 0.0)], 10, 1, (), 9)
    with pytest.raises(UnknownPlugin):
        generate_batch([("chain_sums", 1, 1.0)], 10, 1, (), 9)


def test_between_batches_there_is_the_cooldown() -> None:
    assert pause_before_next_s([], 60.0) == 0
    assert pause_before_next_s([FinishedRefill("submitted", 20.0)], 60.0) == 40.0
    assert pause_before_next_s([FinishedRefill("submitted", 70.0)], 60.0) == 0


def test_pauses_grow_while_nothing_can_be_made() -> None:
    """The prior system retried every five minutes for ever."""
    pauses = [
        pause_before_next_s([FinishedRefill(EMPTY, 0.0)] * times + [FinishedRefill("submitted", 9.0)], 0.0)
        for times in (0, 1, 2, 3, 10)
    ]
    assert pauses == [0.0, 60.0, 120.0, 240.0, EMPTY_LAST_S]


def test_the_hourly_budget_shortens_the_last_batch_and_then_blocks() -> None:
    settings = GenerationSettings(hourly_examples=1_000)
    assert [allowed_examples(400, made, settings) for made in (0, 700, 1_000, 1_200)] == [400, 300, 0, 0]
    assert allowed_examples(400, 10**9, GenerationSettings()) == 400


def test_a_source_over_its_daily_budget_is_skipped() -> None:
    paid = SourceSettings(name="teacher", daily_tokens=1_000)
    settings = GenerationSettings(sources=(SourceSettings(name="tasks"), paid))
    assert [source.name for source in affordable_sources(settings, {"teacher": 999})] == ["tasks", "teacher"]
    assert [source.name for source in affordable_sources(settings, {"teacher": 1_000})] == ["tasks"]


def test_a_seed_chooses_one_source_and_many_seeds_by_share() -> None:
    sources = (SourceSettings(name="tasks", share=3.0), SourceSettings(name="teacher"))
    drawn = Counter(choose_source(sources, seed).name for seed in range(2_000))
    assert 0.7 < drawn["tasks"] / 2_000 < 0.8
    assert choose_source(sources, 5) == choose_source(sources, 5)


def test_a_generator_listed_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="names one generator twice"):
        GenerationSettings(sources=(SourceSettings(name="tasks"), SourceSettings(name="tasks")))
