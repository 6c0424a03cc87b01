"""Numbers and states as people read them."""

from __future__ import annotations

import dataclasses

import pytest
from ratchet.evaluation.record import Rate
from ratchet.views.view_model import (
    CheckpointView,
    Deployed,
    Training,
    bar,
    elapsed,
    levels_line,
    percent,
    plain,
    shortened,
    status_text,
    thousands,
    training_line,
)


@pytest.mark.parametrize(
    ("correct", "n", "said"), [(0, 300, "0"), (1, 300, "1"), (150, 300, "50"), (299, 300, "99"), (300, 300, "100")]
)
def test_a_percentage_is_100_or_0_only_when_exact(correct: int, n: int, said: str) -> None:
    assert percent(Rate(correct=correct, n=n)) == said


def test_bars_grow_with_the_rate() -> None:
    assert "".join(bar(Rate(correct=c, n=100)) for c in (0, 1, 12, 50, 90, 99, 100)) == "··▁▄▇██"


@pytest.mark.parametrize(("number", "said"), [(950, "950"), (9_500, "9,500"), (18_200, "18.2k"), (1_400_000, "1.4M")])
def test_thousands_are_separated(number: float, said: str) -> None:
    assert thousands(number) == said


@pytest.mark.parametrize(("seconds", "said"), [(-1, "0:00"), (59, "0:59"), (187, "3:07"), (3729, "1:02:09")])
def test_elapsed_time_is_formatted(seconds: float, said: str) -> None:
    assert elapsed(seconds) == said


def test_checkpoints_are_shown_by_number() -> None:
    assert plain("c0007-3fa9c2 is\nnewer than c0012-000000") == "#7 is newer than #12"
    assert plain("batch 3fa9c2 stays") == "batch 3fa9c2 stays"


def test_a_checkpoint_is_shown_with_its_state() -> None:
    live = Deployed(desired=3, actual=3, reason="", since_at=0.0)
    view = CheckpointView(
        id="x", ordinal=4, step=1, created_at=0.0, verdicts_wanted=("testing", "regression", "mining")
    )
    assert status_text(view, live) == "waiting for testing"
    assert (
        status_text(dataclasses.replace(view, outcomes={"testing": "evaluated", "mining": "mined"}), live)
        == "2 of 3 verdicts"
    )
    assert status_text(dataclasses.replace(view, outcomes={"testing": "superseded"}), live) == "superseded"
    assert status_text(dataclasses.replace(view, outcomes={"deployment": "deployed"}), live) == "was live"
    assert status_text(dataclasses.replace(view, state="broken"), live) == "broken"
    assert status_text(dataclasses.replace(view, ordinal=3), live) == "live"
    assert status_text(dataclasses.replace(view, ordinal=3), dataclasses.replace(live, actual=1)) == "going live"


def test_the_training_line_shows_known_values_only() -> None:
    running = Training("training", "abcdef12", "generation", 100, 200, step=12, loss=0.5, tokens_per_s=18_200.0)
    assert training_line(running) == (
        "step 12 · loss 0.500 · 18.2k tokens/s · 100 of 200 examples · generation batch abcdef"
    )
    assert "resume" in training_line(Training("paused"))


def test_levels_are_listed_by_family_easiest_first() -> None:
    rates = {("b", 1): Rate(correct=1, n=2), ("a", 2): Rate(correct=0, n=2), ("a", 1): Rate(correct=2, n=2)}
    assert levels_line(CheckpointView("x", 1, 1, 0.0, levels=rates)) == "a 100 0 · b 50"


def test_a_long_or_broken_text_is_one_short_line() -> None:
    assert shortened("a\n b\tc", 9) == "a b c"
    assert shortened("0123456789", 9) == "01234567…"
