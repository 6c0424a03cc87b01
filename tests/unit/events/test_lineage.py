"""A story follows the subjects: from what was mined to the checkpoint that went live by it."""

from __future__ import annotations

from typing import Any

from ratchet.events import CATALOGUE
from ratchet.events.lineage import BEGINNINGS, ORIGINS, Lineage, Node, Told

MINED = [
    ("mined", "examples.mined", {"checkpoint_id": "c1", "count": 9}, None),
    ("other", "batch.queued", {"batch_id": "b0"}, None),
    ("submitted", "batch.submitted", {"batch_id": "b1"}, "mined"),
    ("queued", "batch.queued", {"batch_id": "b1"}, "submitted"),
    ("started", "training.started", {"batch_id": "b1"}, "other"),
    ("saved", "checkpoint.saved", {"checkpoint_id": "c2", "step": 10, "batch_id": "b1"}, "other"),
    ("evaluated", "checkpoint.evaluated", {"checkpoint_id": "c2", "pools": ["eval"]}, "saved"),
    ("again", "examples.mined", {"checkpoint_id": "c2", "count": 3}, "evaluated"),
    ("more", "batch.submitted", {"batch_id": "b2"}, "again"),
]
HEIR = [
    ("saved3", "checkpoint.saved", {"checkpoint_id": "c3", "step": 20, "batch_id": "b0"}, None),
    ("seen3", "checkpoint.evaluated", {"checkpoint_id": "c3", "pools": ["eval"]}, "again"),
    ("asked3", "evaluation.requested", {"checkpoint_id": "c3", "suite_id": "s"}, "again"),
    ("evaluated3", "checkpoint.evaluated", {"checkpoint_id": "c3", "pools": ["confirm"]}, "again"),
    ("live3", "checkpoint.deployed", {"checkpoint_id": "c3", "previous_id": "c1"}, "again"),
]
MADE_FROM = {
    "b1": [("examples.mined", "checkpoint_id", "c1")],
    "b2": [("examples.mined", "checkpoint_id", "c2")],
}


def history(*events: tuple[str, str, dict[str, Any], str | None]) -> list[Told]:
    return [Told(id_, name, float(at), cause, fields) for at, (id_, name, fields, cause) in enumerate(events)]


def story(events: list[Told], asked: str, parents: dict[str, str] | None = None) -> Node:
    lineage = Lineage(events, MADE_FROM, parents or {})
    return lineage.story(next(event for event in events if event.id == asked))


def told(node: Node) -> list[tuple[int, str]]:
    return [(depth, n.event.id) for depth, n in node.walk()]


def test_a_mined_item_is_followed_through_training_though_others_woke_the_trainer() -> None:
    assert told(story(history(*MINED), "mined"))[:6] == [
        (0, "mined"),
        (1, "submitted"),
        (2, "queued"),
        (3, "started"),
        (4, "saved"),
        (5, "evaluated"),
    ]


def test_the_next_need_is_told_and_not_followed() -> None:
    ids = [id_ for _, id_ in told(story(history(*MINED), "mined"))]
    assert "again" in ids
    assert "more" not in ids


def test_asked_from_its_end_a_story_goes_back_to_the_need_and_leaves_the_rest_out() -> None:
    node = story(history(*MINED), "queued")
    assert told(node)[:3] == [(0, "mined"), (1, "submitted"), (2, "queued")]
    assert [n.event.id for _, n in node.walk() if n.asked] == ["queued"]


def test_a_checkpoint_that_never_went_live_helped_the_one_trained_on_from_it() -> None:
    ids = [id_ for _, id_ in told(story(history(*MINED, *HEIR), "mined", {"c3": "c2"}))]
    assert ids[-1] == "live3"


def test_a_story_that_never_goes_live_is_told_for_a_while_and_no_longer() -> None:
    line = [(f"s{n}", "checkpoint.saved", {"checkpoint_id": f"c{n}", "step": n}, None) for n in range(1_500)]
    parents = {f"c{n}": f"c{n - 1}" for n in range(1, 1_500)}
    assert [id for _, id in told(story(history(*line), "s100", parents))] == [f"s{n}" for n in range(100, 126)]


def test_both_heirs_of_a_checkpoint_belong_to_the_story_of_their_parent() -> None:
    branch = ("other3", "checkpoint.saved", {"checkpoint_id": "c4", "step": 20, "batch_id": "b4"}, None)
    ids = [id_ for _, id_ in told(story(history(*MINED, *HEIR, branch), "saved", {"c3": "c2", "c4": "c2"}))]
    assert {"saved3", "other3"} <= set(ids)


def test_a_checkpoint_that_went_live_ends_the_story() -> None:
    live = ("live2", "checkpoint.deployed", {"checkpoint_id": "c2", "previous_id": "c1"}, None)
    ids = [id_ for _, id_ in told(story(history(*MINED, live, *HEIR), "mined", {"c3": "c2"}))]
    assert "live2" in ids
    assert "saved3" not in ids


def test_without_a_subject_the_cause_counts() -> None:
    events = history(("low", "queue.low", {"depth": 1}, None), ("sent", "batch.submitted", {"batch_id": "b9"}, "low"))
    assert told(story(events, "sent")) == [(0, "low"), (1, "sent")]


def test_the_table_names_real_events_and_fields() -> None:
    for name, (origins, field) in ORIGINS.items():
        for known in (name, *origins):
            assert field in CATALOGUE[known].model_fields, (name, known)
    assert set(CATALOGUE) >= BEGINNINGS
