from __future__ import annotations

import pytest
from pydantic import ValidationError
from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.evaluation.suite import Suite
from ratchet.tasks.graders import item_key

ITEMS = [
    Example.ask("1+2=", "1+2=3", family="chain_sum", level=1),
    Example.ask("Where?", "Here", family="text", grader="normalized"),
]


def test_items_carry_their_keys() -> None:
    suite = Suite.of("probe", ITEMS)
    assert suite.keys == {item_key(item) for item in ITEMS}
    assert [item.metadata["key"] for item in suite.items] == [item_key(item) for item in ITEMS]
    assert suite.by_id[ITEMS[0].id].messages == ITEMS[0].messages


def test_a_key_given_by_the_source_is_recomputed() -> None:
    named = [Example.ask(place, "Here", key="C sharp", grader="normalized") for place in ("Where?", "Whence?")]
    assert Suite.of("eval", named).keys == {item_key(item) for item in named}


def test_lines_read_back_to_the_same_suite() -> None:
    suite = Suite.of("eval", ITEMS, version=2)
    back = Suite.from_lines("eval", suite.to_lines(), version=2)
    assert back == suite
    assert back.id == suite.id


def test_the_id_of_a_suite_depends_on_all_its_content() -> None:
    ids = {
        Suite.of("eval", ITEMS).id,
        Suite.of("confirm", ITEMS).id,
        Suite.of("eval", ITEMS, version=1).id,
        Suite.of("eval", ITEMS[:1]).id,
        Suite.of("eval", ITEMS[::-1]).id,
    }
    assert len(ids) == 5


def test_an_item_twice_is_refused() -> None:
    again = Example.ask(" 1+2=", "3", family="chain_sum", level=1)
    with pytest.raises(DataError, match=r"chain_sum:1\+2 occurs twice"):
        Suite.of("eval", [ITEMS[0], again])


def test_an_empty_suite_is_refused() -> None:
    with pytest.raises(ValidationError):
        Suite.of("eval", [])


def test_a_suite_line_that_is_no_example_is_named() -> None:
    with pytest.raises(DataError, match="eval suite, line 2"):
        Suite.from_lines("eval", [ITEMS[0].to_line(), '{"text": 1}'])
