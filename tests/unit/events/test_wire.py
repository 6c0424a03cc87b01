from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import EventError
from ratchet.events import CATALOGUE, Event, decode, encode

TEXT = st.text(st.characters(codec="utf-8"))
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    str | None: TEXT | st.none(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    tuple[str, ...]: st.lists(TEXT).map(tuple),
}


def any_event(kind: type[Event]) -> st.SearchStrategy[Event]:
    return st.builds(kind, **{name: BY_TYPE[field.annotation] for name, field in kind.model_fields.items()})


EVENTS = st.one_of([any_event(kind) for kind in CATALOGUE.values()])


@given(EVENTS)
def test_an_event_survives_the_wire(event: Event) -> None:
    assert decode(encode(event)) == event
    assert type(decode(encode(event).encode())) is type(event)


@given(EVENTS, TEXT.filter(lambda key: key not in ("name", "major")), TEXT)
def test_unknown_fields_are_ignored(event: Event, key: str, value: str) -> None:
    fields = {key: value, **json.loads(encode(event))}
    assert decode(json.dumps(fields)) == event


@given(EVENTS, st.integers().filter(lambda major: major != 1))
def test_an_unknown_major_version_is_refused_with_both_versions(event: Event, major: int) -> None:
    fields = {**json.loads(encode(event)), "major": major}
    with pytest.raises(EventError, match=rf"{event.name} has major version {major}, this worker reads 1"):
        decode(json.dumps(fields))


@given(st.binary() | TEXT | st.recursive(st.none() | st.integers() | TEXT, st.lists).map(json.dumps))
def test_malformed_input_is_one_error_class(body: bytes | str) -> None:
    with pytest.raises(EventError):
        decode(body)


@pytest.mark.parametrize("lacking", ["name", "major", "checkpoint_id", "step"])
def test_a_missing_field_is_refused(lacking: str) -> None:
    fields = json.loads(encode(CATALOGUE["checkpoint.saved"](checkpoint_id="c", step=1)))
    del fields[lacking]
    with pytest.raises(EventError):
        decode(json.dumps(fields))


def test_an_event_cannot_be_changed() -> None:
    event = CATALOGUE["batch.queued"](batch_id="b")
    with pytest.raises(ValueError, match="frozen"):
        event.batch_id = "c"


def test_each_event_has_an_id_of_its_own_and_its_name_in_the_catalogue() -> None:
    kind = CATALOGUE["batch.queued"]
    assert kind(batch_id="b").id != kind(batch_id="b").id
    assert all(kind.name == name and name.count(".") == 1 for name, kind in CATALOGUE.items())


def test_a_plug_in_declares_an_event_by_writing_it() -> None:
    class MoonRisen(Event):
        name = "moon.risen"
        phase: int

    try:
        event = MoonRisen(phase=3)
        assert decode(encode(event)) == event
    finally:
        del CATALOGUE["moon.risen"]
