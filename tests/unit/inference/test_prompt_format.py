from __future__ import annotations

from typing import Any

import pytest
from ratchet.data.example import Example, Message
from ratchet.errors import SettingsError
from ratchet.inference.chat_codec import ChatCodec
from ratchet.inference.generator import Decoding
from ratchet.inference.prompt_format import PromptFormat, day_of, decoding_key
from ratchet.inference.tiny import build_tiny_tokenizer
from ratchet.profiles.regime3.profile import INSTRUCTION
from ratchet.settings import Settings
from ratchet.settings.training import MonitoringSettings, ProfileSettings

MOMENT = 1_770_000_000.0
EXAMPLE = Example.ask("What is 2+3?", "(add 2 3) = 5")


def test_prompts_follow_the_configured_profile_and_system_prompt() -> None:
    settings = Settings(
        profile=ProfileSettings(name="regime3"), monitoring=MonitoringSettings(system_prompt_base="Today is {date}.")
    )
    prompt_format = PromptFormat.configured(settings, MOMENT)
    system = Message(role="system", content=f"Today is 2026-02-02.\n\n{INSTRUCTION}")
    assert day_of(MOMENT) == "2026-02-02"
    assert prompt_format.apply_to_prompt(EXAMPLE.prompt) == (system, EXAMPLE.messages[0])
    assert prompt_format.apply_to_prompt(EXAMPLE.prompt) == prompt_format.apply(EXAMPLE).prompt
    assert prompt_format.parse(str(prompt_format.apply(EXAMPLE).answer)) == "5"


def test_a_profile_gets_its_configured_options() -> None:
    def asked(profile: str, **options: object) -> str:
        told = Settings(profile=ProfileSettings(name=profile, options=options))
        return PromptFormat.configured(told, MOMENT).apply_to_prompt(EXAMPLE.prompt)[0].content

    assert asked("plain") == EXAMPLE.question
    with pytest.raises(SettingsError, match=r"profile\.options of 'plain'"):
        asked("plain", shout=True)


def test_a_profiles_stops_are_added_once() -> None:
    assert PromptFormat().apply_to_decoding(Decoding(stop=("x", "x"))).stop == ("x",)


def test_the_templates_variables_follow_the_setting() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt and enable_thinking is false %}{{ 'quick: ' }}{% endif %}"

    def prompted(**request: Any) -> str:
        settings = Settings(profile=ProfileSettings(template_variables=variables))
        codec = ChatCodec(tokenizer, PromptFormat.configured(settings, MOMENT), 512, "")
        return str(tokenizer.decode(codec.prompt(EXAMPLE.prompt, Decoding(), **request).token_ids))

    variables: dict[str, Any] = {}
    assert prompted().endswith("assistant\n")
    assert prompted(variables={"enable_thinking": False}).endswith("quick: "), "a request's own"
    variables = {"enable_thinking": False}
    assert prompted().endswith("quick: ")
    assert prompted(variables={"enable_thinking": True}).endswith("assistant\n")


def test_records_under_other_template_variables_are_not_compared() -> None:
    keys = {decoding_key(Decoding(), "plain", {}, "", variables) for variables in ({"a": 1}, {"a": 2}, {}, None)}
    assert len(keys) == 3
