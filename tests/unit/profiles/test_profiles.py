"""The contract that every installed profile keeps."""

from __future__ import annotations

import pytest
from ratchet.data.example import Example, Message
from ratchet.errors import DataError, SettingsError, UnknownPlugin
from ratchet.profiles import registry
from ratchet.profiles.profile import Profile, dress_prompt
from ratchet.profiles.system_turn import on_day, with_system_turn

CONVERSATIONS = [
    Example.ask("What is 2+2?", "4"),
    Example.ask("grüß 🤔", "line\nline"),
    Example(
        messages=(
            Message(role="system", content="be brief"),
            Message(role="user", content="1?"),
            Message(role="assistant", content="one"),
            Message(role="user", content="2?"),
            Message(role="assistant", content="two"),
        )
    ),
]


@pytest.fixture(params=registry.known())
def profile(request: pytest.FixtureRequest) -> Profile:
    return registry.get(request.param)


def test_a_profile_has_the_protocols_parts(profile: Profile) -> None:
    assert isinstance(profile, Profile)
    assert profile.name in registry.known()
    assert profile.version


@pytest.mark.parametrize("example", CONVERSATIONS)
def test_dressing_is_a_function_of_the_content(profile: Profile, example: Example) -> None:
    before = example.model_dump()
    first = profile.transform_example(example, "given")
    assert profile.transform_example(example, "given") == first
    assert example.model_dump() == before


@pytest.mark.parametrize("example", CONVERSATIONS)
def test_a_served_prompt_is_dressed_as_in_training(profile: Profile, example: Example) -> None:
    assert profile.transform_example(example, "given").prompt == dress_prompt(profile, example.prompt, "given")


@pytest.mark.parametrize("example", CONVERSATIONS)
def test_undressing_gives_the_answer_back(profile: Profile, example: Example) -> None:
    dressed = profile.transform_example(example, "")
    assert profile.extract_answer(str(dressed.answer)) == example.answer


@pytest.mark.parametrize("example", CONVERSATIONS)
def test_good_conversations_are_valid_before_and_after(profile: Profile, example: Example) -> None:
    profile.validate(example)
    profile.validate(profile.transform_example(example, "given"))


def test_a_conversation_without_a_question_is_refused(profile: Profile) -> None:
    with pytest.raises(DataError):
        profile.validate(Example(messages=(Message(role="assistant", content="hello"),)))


def test_plain_changes_nothing_but_the_system_turn() -> None:
    plain = registry.get("plain")
    assert plain.transform_example(CONVERSATIONS[0], "") == CONVERSATIONS[0]
    assert plain.transform_example(CONVERSATIONS[0], "given").messages[0] == Message(role="system", content="given")
    assert plain.transform_example(CONVERSATIONS[2], "given") == CONVERSATIONS[2]


def test_unknown_names_and_options_are_errors_that_list_the_known() -> None:
    with pytest.raises(UnknownPlugin, match="plain"):
        registry.get("unheard_of")
    with pytest.raises(SettingsError, match="none"):
        registry.get("plain", {"shade": 1})


def test_the_day_stands_in_the_system_prompt() -> None:
    from datetime import date

    assert on_day("Today is {date}.", date(2026, 2, 3)) == "Today is 2026-02-03."
    assert with_system_turn(CONVERSATIONS[0], "").messages == CONVERSATIONS[0].messages
