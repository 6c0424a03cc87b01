"""Marks: drawn from the content, asked for in the question, put around the answer, and allowed in decoding."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from ratchet.data.example import Example, Message
from ratchet.errors import DataError
from ratchet.inference.chat_template import chat_template
from ratchet.profiles.emoji_think.processors import CountedRuns, NoThinkTags
from ratchet.profiles.emoji_think.profile import STOP, THINK, EmojiThink, Mark, bare

from tests.support.tiny_model import build_tiny_tokenizer

PROFILE = EmojiThink()
TOKENIZER = build_tiny_tokenizer()


def conversation(*contents: str) -> tuple[Message, ...]:
    return tuple(
        Message(role="assistant" if place % 2 else "user", content=content) for place, content in enumerate(contents)
    )


def formatted(*contents: str) -> list[str]:
    return [turn.content for turn in PROFILE.transform_example(Example(messages=conversation(*contents))).messages]


def test_the_documented_example_is_formatted_as_shown() -> None:
    question, answer = formatted("What is 2+2?", "<think>hm</think> The answer is 4.")
    think, stop = THINK.draw("What is 2+2?"), STOP.draw("What is 2+2?")
    assert question == f"What is 2+2?\n\n{THINK.instruction(think)}\n\n{STOP.instruction(stop)}"
    assert answer == f"{think.text}\nhm The answer is 4.\n{stop.text}"
    assert THINK.instruction(Mark("🤨", 8)) == "For this task, think with 🤨 /eight/ times."
    assert STOP.instruction(Mark("🔚", 2)) == "When finished, emit 🔚 /twice/ to signal completion."


def test_marks_belong_to_the_content_and_are_spread_evenly() -> None:
    for marks in (THINK, STOP):
        drawn = Counter(marks.draw(f"question {number}") for number in range(6000))
        assert len(drawn) == len(marks.pool) * len(marks.words)
        assert min(drawn.values()) > 0.5 * 6000 / len(drawn)
        assert max(drawn.values()) < 1.5 * 6000 / len(drawn)


def test_one_pair_of_marks_holds_through_a_conversation() -> None:
    first, one, second, two = formatted("1?", "one", "2?", "two")
    think, stop = THINK.draw("1?"), STOP.draw("1?")
    assert THINK.asked(first) == THINK.asked(second) == think
    assert (one, two) == (f"{think.text}\none\n{stop.text}", f"{think.text}\ntwo\n{stop.text}")


def test_a_question_that_names_its_marks_keeps_them() -> None:
    asks = "1? For this task, think with 🎯 /three/ times."
    question, answer = formatted(asks, "one")
    assert question == f"{asks}\n\n{STOP.instruction(STOP.draw(asks))}"
    assert answer.startswith("🎯🎯🎯\none\n")
    assert formatted("I think with care", "yes")[0].count("For this task, think with") == 1
    later = formatted("1?", "one", "2? When finished, emit 🚦 /four times/ to signal completion.", "two")
    assert later[1].endswith(f"\n{STOP.draw('1?').text}")
    assert later[3].endswith("\ntwo\n🚦🚦🚦🚦")


def test_the_marks_of_an_answer_are_replaced_by_the_requested_ones() -> None:
    assert formatted("1?", "🤔🤔🤔\none\n🛑🛑")[1] == formatted("1?", "one")[1]
    assert formatted("1?", "🤔🤔\none")[1] == formatted("1?", "one")[1]
    assert bare("✨ A2\n🔚🔚🔚🔚") == "✨ A2"
    assert bare("🤔🤔 in the middle 🛑🛑") == "🤔🤔 in the middle 🛑🛑"
    assert bare("🤔💭\nmixed\n🛑⛔") == "🤔💭\nmixed\n🛑⛔"
    assert bare("🤔🤔🤔🤔🤔🤔🤔🤔🤔🤔\none\n⏹️⏹️⏹️⏹️⏹️") == "one"


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("For this task, think with 🐸 /two/ times.", "🐸 is not a thinking emoji"),
        ("For this task, think with 🤔 /nine/ times.", "/nine/ is not a count. Known: two, three"),
        ("When finished, emit 🛑 /once/ to signal completion.", "/once/ is not a count"),
    ],
)
def test_a_question_with_an_unknown_count_is_refused(question: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        PROFILE.validate(Example.ask(question, "x"))


def history(asked: Mark | None, said: str) -> list[int]:
    marks = None if asked is None else THINK if asked.emoji in THINK.pool else STOP
    question = "1?" if asked is None or marks is None else f"1?\n\n{marks.instruction(asked)}"
    (prompt,) = chat_template(TOKENIZER).prompt_ids([conversation(question)])
    return [*prompt, *TOKENIZER.encode(said, add_special_tokens=False)]


def padded(rows: list[list[int]], pad: int = 3) -> torch.Tensor:
    width = max(map(len, rows)) + pad
    return torch.tensor([[TOKENIZER.pad_token_id] * (width - len(row)) + row for row in rows])


def verdicts(rows: list[list[int]], dtype: torch.dtype = torch.float32, follows: str = "<|im_end|>") -> list[str]:
    """For every row, whether what follows a run is favoured, disfavoured, or neither."""
    logits = torch.zeros(len(rows), len(TOKENIZER), dtype=dtype)
    changed = CountedRuns(TOKENIZER)(padded(rows), logits)
    assert torch.isfinite(changed).all()
    end = TOKENIZER.convert_tokens_to_ids(follows)
    other = TOKENIZER.encode("x")[0]
    words = {0: "free", 1: "end", -1: "go on"}
    return [words[int((row[end] > row[other]).int() - (row[end] < row[other]).int())] for row in changed]


@pytest.mark.parametrize("emoji", STOP.pool)
@pytest.mark.parametrize("count", sorted(STOP.words))
def test_decoding_produces_the_exact_stop_count(emoji: str, count: int) -> None:
    rows = [history(Mark(emoji, count), f"🤔🤔\none\n{emoji * said}") for said in range(count + 2)]
    assert verdicts(rows) == ["free", *["go on"] * (count - 1), "end", "end"]


@pytest.mark.parametrize("emoji", THINK.pool)
def test_decoding_produces_the_exact_thinking_count(emoji: str) -> None:
    for count in THINK.words:
        rows = [history(Mark(emoji, count), emoji * said) for said in range(count + 2)]
        assert verdicts(rows, follows="Ċ") == ["free", *["go on"] * (count - 1), "end", "end"]
        assert verdicts(rows)[1:count] == ["go on"] * (count - 1)


@pytest.mark.parametrize("pieces", [True, False], ids=["in pieces", "one token"])
@pytest.mark.parametrize("wants", ["to end at once", "never to end"])
@pytest.mark.parametrize("count", sorted(STOP.words))
def test_decoding_produces_the_requested_count_for_any_logits(count: int, wants: str, pieces: bool) -> None:
    tokenizer: Any = build_tiny_tokenizer()
    if not pieces:
        tokenizer.add_tokens(list(PROFILE.tokens()))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for emoji in STOP.pool:
        mark = Mark(emoji, count)
        (prompt,) = chat_template(tokenizer).prompt_ids([conversation(f"1?\n\n{STOP.instruction(mark)}")])
        said, one = tokenizer.encode(f"one\n{emoji}"), tokenizer.encode(emoji)
        processors = PROFILE.logits_processors(tokenizer)
        while said[-1] != end:
            logits = torch.zeros(1, len(tokenizer), dtype=torch.float16)
            begun = len(said) - len(tokenizer.encode("one\n"))
            logits[0, one[begun % len(one)]] = 10
            if wants == "to end at once" and begun % len(one) == 0:
                logits[0, end] = 20
            for processor in processors:
                logits = processor(torch.tensor([[*prompt, *said]]), logits)
            said.append(int(logits.argmax()))
        assert tokenizer.decode(said[:-1]) == f"one\n{mark.text}"


def test_emoji_within_the_answer_are_not_constrained() -> None:
    rows = [history(Mark("🤔", 3), said) for said in ("🤔🤔🤔\n🤔", "so 🤔🤔🤔", "🤔🤔🤔\nso\n🤔")]
    rows += [history(Mark("🛑", 3), said) for said in ("so 🛑", "🛑 so")]
    assert verdicts(rows) == verdicts(rows, follows="Ċ") == ["free"] * 5


def test_without_an_instruction_any_count_may_be_reached() -> None:
    assert verdicts([history(None, f"one\n{'🛑' * said}") for said in (1, 2, 3, 4)]) == ["free"] * 3 + ["end"]


def test_rows_do_not_see_each_other_and_padding_changes_nothing() -> None:
    rows = [
        history(Mark("🛑", 2), "one\n🛑🛑"),
        history(Mark("🛑", 3), "🤔🤔\na much longer answer\n🛑🛑"),
        history(Mark("🛡️", 4), "one"),
        history(Mark("🔚", 2), "it says 🔚🔚"),
    ]
    alone = [verdicts([row])[0] for row in rows]
    assert alone == verdicts(rows) == list(reversed(verdicts(list(reversed(rows)))))
    assert alone == ["end", "go on", "free", "free"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_penalties_are_finite_and_do_not_add_up(dtype: torch.dtype) -> None:
    processor, rows = CountedRuns(TOKENIZER), padded([history(Mark("🛑", 2), "one\n🛑🛑")])
    logits = torch.full((1, len(TOKENIZER)), torch.finfo(dtype).min, dtype=dtype)
    given = logits.clone()
    first = processor(rows, logits)
    assert torch.isfinite(first).all()
    assert torch.equal(logits, given)
    assert torch.equal(processor(rows, logits), first)
    assert verdicts([history(Mark("🛑", 2), "one\n🛑🛑")], dtype) == ["end"]


def test_think_tags_are_penalised_only_where_they_are_one_token() -> None:
    logits = torch.zeros(1, len(TOKENIZER))
    assert torch.equal(NoThinkTags(TOKENIZER)(torch.zeros(1, 1), logits), logits)
    with_tags: Any = build_tiny_tokenizer()
    with_tags.add_tokens(["<think>", "</think>"])
    changed = NoThinkTags(with_tags)(torch.zeros(1, 1), torch.zeros(1, len(with_tags)))
    assert (changed[0] < 0).nonzero()[:, 0].tolist() == with_tags.convert_tokens_to_ids(["<think>", "</think>"])


def test_the_profile_is_imported_without_torch() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from ratchet.profiles.profile import get_profile, known_profiles;"
        "[get_profile(name) for name in known_profiles()];"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
