"""How long a stop waits for a segment: the step in progress and the save, whatever they take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trainer.planning import MARGIN, UNKNOWN_STEP_S, StopDeadline

COMPOSE = Path(__file__).parents[4] / "compose" / "common.yml"


def progress(state: str = "training", **fields: Any) -> dict[str, Any]:
    return {"state": state, **fields}


def test_nothing_is_waited_for_before_training_has_begun() -> None:
    deadline = StopDeadline(save_s=5.0, size_bytes=1)
    assert deadline.update({"note": "has loaded the model"}) == 0.0
    assert deadline.note == ""


def test_the_first_step_is_waited_for_though_none_was_measured() -> None:
    deadline = StopDeadline(save_s=5.0, size_bytes=1)
    assert deadline.update(progress(longest_step_s=0.0)) == UNKNOWN_STEP_S + MARGIN * 5.0
    assert deadline.note == "finishes a step, then saves the checkpoint, about 5 s"


def test_a_micro_batch_of_the_first_step_tells_how_long_it_takes() -> None:
    deadline = StopDeadline(save_s=5.0, size_bytes=1)
    deadline.update(progress(longest_step_s=0.0))
    assert deadline.update(progress(longest_step_s=10.0)) == MARGIN * (10.0 + 5.0)
    assert deadline.note == "finishes a step of about 10 s, then saves the checkpoint, about 5 s"
    assert deadline.update(progress(longest_step_s=4.0)) == MARGIN * (10.0 + 5.0), "the longest counts"


def test_before_the_first_save_its_time_follows_from_the_size() -> None:
    small, large = StopDeadline(None, 10_000_000), StopDeadline(None, 1_000_000_000)
    assert small.update(progress(longest_step_s=1.0)) < large.update(progress(longest_step_s=1.0))


def test_while_it_saves_the_note_says_so() -> None:
    deadline = StopDeadline(save_s=7.0, size_bytes=1)
    deadline.update(progress("saving", longest_step_s=10.0))
    assert deadline.note == "saves the checkpoint, about 7 s"
    assert deadline.saved_s is not None


def test_a_container_is_not_killed_before_the_first_step_of_a_small_model_is_saved() -> None:
    """The bound for SmolLM2-135M, none of whose steps or saves has been measured, within compose's grace period."""
    found = re.search(r"stop_grace_period: \$\{RATCHET_STOP_GRACE:-(\d+)m\}", COMPOSE.read_text(encoding="utf-8"))
    assert found is not None
    deadline = StopDeadline(save_s=None, size_bytes=269_000_000)
    assert deadline.update(progress()) < int(found[1]) * 60
