"""The contract that every installed profile keeps. A plug-in author runs these on their own, by its name."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ratchet.data.example import Example, Message
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, SettingsError, UnknownPlugin
from ratchet.inference.chat_template import chat_template
from ratchet.inference.prompt_format import PromptFormat
from ratchet.profiles.profile import Profile, get_profile, known_profiles, on_day, prompt_as_trained, with_system_turn
from ratchet.settings import load
from ratchet.tasks import synthetic
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import grade_example
from trainer.cli import parse
from trainer.config import ConfigLoader

from tests.support.tiny_model import build_tiny_tokenizer

CONVERSATIONS = [
    Example.ask("What is 2+2?", "4"),
    Example.ask("grüß 🤔", "line\nline"),
    Example.ask("a clue ✨", "✨ no marks\n🛑"),
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
ROWS = {
    path.stem: [example for _, example in read_examples(path) if isinstance(example, Example)]
    for path in sorted((Path(__file__).parents[2] / "data").glob("*.jsonl"))
}
SUMS = [to_example(synthetic.ChainSum().generate(level, seed), "test") for level in (1, 2, 3) for seed in range(5)]
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)


@pytest.fixture(params=known_profiles())
def profile(request: pytest.FixtureRequest) -> Profile:
    return get_profile(request.param)


def all_examples() -> list[Example]:
    return [*CONVERSATIONS, *SUMS, *(example for rows in ROWS.values() for example in rows)]


def test_the_real_rows_are_there() -> None:
    assert {name: len(rows) for name, rows in ROWS.items()} == {
        "babi_qa1_100": 100,
        "binary_100": 100,
        "gsm8k_200": 200,
        "syllo_easy_50": 50,
    }


def test_a_profile_implements_the_protocol(profile: Profile) -> None:
    assert isinstance(profile, Profile)
    assert profile.name in known_profiles()
    assert profile.version


def test_a_profile_is_a_function_of_the_content(profile: Profile) -> None:
    for example in all_examples():
        before, state = example.model_dump(), random.getstate()
        first = profile.transform_example(example, "given")
        assert profile.transform_example(example, "given") == first
        assert (example.model_dump(), random.getstate()) == (before, state)


def test_applying_a_profile_twice_is_applying_it_once(profile: Profile) -> None:
    for example in all_examples():
        once = profile.transform_example(example, "given")
        assert profile.transform_example(once, "given") == once


def test_a_served_prompt_is_formatted_as_in_training(profile: Profile) -> None:
    for example in all_examples():
        assert profile.transform_example(example, "given").prompt == prompt_as_trained(profile, example.prompt, "given")


def test_a_continued_conversation_is_served_as_it_was_trained(profile: Profile) -> None:
    example = CONVERSATIONS[3]
    trained = profile.transform_example(example, "given").messages
    for end in range(2, len(trained), 2):
        assert prompt_as_trained(profile, example.messages[:end], "given") == trained[:end]
        assert prompt_as_trained(profile, (*trained[: end - 1], example.messages[end - 1]), "given") == trained[:end]


def test_parsing_returns_the_graded_answer(profile: Profile) -> None:
    for example in all_examples():
        answer = profile.extract_answer(str(profile.transform_example(example).answer))
        assert answer in (str(example.answer).strip(), example.metadata.get("gold"))
    for example in (*SUMS, *ROWS["babi_qa1_100"], *ROWS["gsm8k_200"]):
        answer = profile.extract_answer(str(profile.transform_example(example).answer))
        assert grade_example(example, answer).correct


@given(question=TEXTS, answer=TEXTS)
@pytest.mark.parametrize("name", known_profiles())
def test_any_text_can_be_formatted_and_parsed(name: str, question: str, answer: str) -> None:
    profile = get_profile(name)
    formatted = profile.transform_example(Example.ask(question, answer))
    assert profile.extract_answer(str(formatted.answer)) == profile.extract_answer(answer) == answer.strip()
    assert profile.transform_example(formatted) == formatted


@given(answer=TEXTS)
@pytest.mark.parametrize("name", known_profiles())
def test_any_model_output_can_be_parsed(name: str, answer: str) -> None:
    profile = get_profile(name)
    formatted = str(profile.transform_example(Example.ask("?", answer)).answer)
    for end in range(len(formatted) + 1):
        assert isinstance(profile.extract_answer(formatted[:end]), str)


def test_good_conversations_are_valid_before_and_after(profile: Profile) -> None:
    for example in all_examples():
        profile.validate(example)
        profile.validate(profile.transform_example(example, "given"))


def test_a_conversation_without_a_question_is_refused(profile: Profile) -> None:
    with pytest.raises(DataError):
        profile.validate(Example(messages=(Message(role="assistant", content="hello"),)))


def test_training_starts_where_serving_ends(profile: Profile) -> None:
    tokenizer = build_tiny_tokenizer()
    for example in (*CONVERSATIONS, *ROWS["syllo_easy_50"][:5], *ROWS["binary_100"][:5]):
        formatted = profile.transform_example(example, "given")
        rendered = chat_template(tokenizer).training_ids(formatted.messages)
        (served,) = chat_template(tokenizer).prompt_ids([prompt_as_trained(profile, example.prompt, "given")])
        assert rendered.ids[: len(served)] == served
        assert all(rendered.trained[len(served) :])
        assert not rendered.trained[len(served) - 1]
        assert tokenizer.decode(rendered.ids[len(served) :]) == f"{formatted.answer}<|im_end|>"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_processors_treat_each_row_alone_and_keep_no_state(profile: Profile, dtype: torch.dtype) -> None:
    tokenizer = build_tiny_tokenizer()
    formatted = [profile.transform_example(example, "given") for example in (*CONVERSATIONS, *SUMS[:3])]
    answered = [chat_template(tokenizer).training_ids(example.messages).ids for example in formatted]
    rows = [ids[: len(ids) - cut] for ids in answered for cut in (1, 2, 5)]
    processors = profile.logits_processors(tokenizer)

    def judged(batch: list[list[int]], pad: int) -> torch.Tensor:
        width = max(map(len, batch)) + pad
        history = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in batch])
        logits = torch.linspace(-8, 8, len(tokenizer), dtype=dtype).repeat(len(batch), 1)
        for processor in processors:
            logits = processor(history, logits)
        return logits

    together = judged(rows, pad=3)
    assert torch.isfinite(together).all()
    assert torch.equal(torch.cat([judged([row], pad=0) for row in rows]), together)
    assert torch.equal(judged(rows[::-1], pad=1).flip(0), together)


@pytest.mark.parametrize("name", known_profiles())
def test_one_setting_switches_training_and_serving(name: str, tmp_path: Path) -> None:
    file = tmp_path / "ratchet.toml"
    file.write_text(f'[profile]\nname = "{name}"\n')
    trained = ConfigLoader.from_args_and_json(parse(["--config", str(file), "--dataset", "rows.jsonl"])).profile
    assert trained == load(file).profile
    served = PromptFormat.configured(load(file), at=0.0)
    assert (trained.name, served.profile.name) == (name, name)
    in_training = PromptFormat.named(trained.name, trained.options)
    assert served.apply(CONVERSATIONS[0]) == in_training.apply(CONVERSATIONS[0])


def test_plain_changes_nothing_but_the_system_turn() -> None:
    plain = get_profile("plain")
    assert plain.transform_example(CONVERSATIONS[0], "") == CONVERSATIONS[0]
    assert plain.transform_example(CONVERSATIONS[0], "given").messages[0] == Message(role="system", content="given")
    assert plain.transform_example(CONVERSATIONS[3], "given") == CONVERSATIONS[3]


def test_unknown_names_and_options_are_errors_that_list_the_known() -> None:
    with pytest.raises(UnknownPlugin, match=r"Known: emoji_think, plain, regime3"):
        get_profile("unheard_of")
    with pytest.raises(SettingsError, match="none"):
        get_profile("plain", {"shade": 1})


def test_the_system_prompt_has_the_date() -> None:
    assert on_day("Today is {date}.", date(2026, 2, 3)) == "Today is 2026-02-03."
    assert with_system_turn(CONVERSATIONS[0], "").messages == CONVERSATIONS[0].messages
