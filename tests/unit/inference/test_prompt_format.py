from __future__ import annotations

import pytest
from ratchet.data.example import Example, Message
from ratchet.errors import SettingsError
from ratchet.inference.generator import Decoding
from ratchet.inference.prompt_format import PromptFormat, day_of
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
