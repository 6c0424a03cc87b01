from __future__ import annotations

from typing import Any

import pytest
from ratchet.data.column_map import ColumnMap, propose_mapping
from ratchet.errors import SettingsError

CHAT = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"input_text": "Q", "target_text": "A"}, "question=input_text,answer=target_text"),
        ({"Source": "Q", "Target": "A", "id": 7}, "question=Source,answer=Target"),
        ({"article": "Q", "highlights": "A"}, "question=article,answer=highlights"),
        ({"text": "Q", "label": "A"}, "question=text,answer=label"),
        ({"id": 7, "Frage": "Q", "Antwort": "A"}, "question=Frage,answer=Antwort"),
        ({"row_id": "x7", "Frage": "Q", "Antwort": "A"}, "question=Frage,answer=Antwort"),
        ({"utterance": "Q", "intent": "A"}, "question=utterance,answer=intent"),
        ({"dialogue": CHAT, "id": "7"}, "messages=dialogue"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "prompt=prompt,completion=chosen"),
        ({"chosen": CHAT, "rejected": CHAT}, "messages=chosen"),
    ],
)
def test_a_mapping_is_proposed_and_shown(row: dict[str, Any], mapping: str) -> None:
    proposal = propose_mapping(list(row), [row])
    assert proposal is not None
    assert str(proposal.mapping) == mapping
    assert ColumnMap.parse(mapping) == proposal.mapping
    assert f"`--map {mapping}` reads a row as the question 'Q' and the answer 'A'" in proposal.sentence


def test_a_few_bad_rows_do_not_hide_a_mapping() -> None:
    rows = [{"Frage": "Q", "Antwort": ""}, *({"Frage": f"Q{number}", "Antwort": "A"} for number in range(9))]
    proposal = propose_mapping(["Frage", "Antwort"], rows)
    assert proposal is not None
    assert "the question 'Q0' and the answer 'A'" in proposal.sentence


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q", "answer": "A"},
        {"a": "x", "b": "y", "c": "z"},
        {"text": "only text"},
        {"n": 1, "m": 2},
        {"chosen": "Human: a\nAssistant: b", "rejected": "Human: a\nAssistant: c"},
    ],
)
def test_nothing_is_proposed_where_a_shape_fits_or_nothing_is_clear(row: dict[str, Any]) -> None:
    assert propose_mapping(list(row), [row]) is None


def test_a_column_name_may_hold_a_comma() -> None:
    mapping = ColumnMap.parse("question=Text, long , answer=Label")
    assert mapping.pairs == (("question", "Text, long"), ("answer", "Label"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question", "not KEY=COLUMN"),
        ("question=", "not KEY=COLUMN"),
        ("Q=prompt", "'Q' is not a key.*Known:.*question"),
        ("question=a,question=b", "names a key twice"),
        ("question=a,answer=a", "names a column twice"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ColumnMap.parse(text)
