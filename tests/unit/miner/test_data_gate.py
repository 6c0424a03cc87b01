from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pytest
from miner.data_gate import Accepted, DataGate, GatePolicy, Quarantined, TokenCounter
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.data.near_duplicates import NearDuplicates, common_runs
from ratchet.errors import BrokenCheckpoint, DataError
from ratchet.evaluation.suite import HoldOut
from ratchet.inference.chat_template import chat_template
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.tiny import build_tiny_tokenizer
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import item_key
from ratchet.tasks.judge import judgement

DATA = Path(__file__).parents[2] / "data"
SUM = Example.ask("1+2=", "1+2=3", family="chain_sum", level=1)
TEXT = Example.ask("Where does the cat sleep at night?", "on the mat", family="cats", grader="normalized")


def words(example: Example) -> int:
    return sum(len(message.content.split()) for message in example.messages)


def gate(
    held_out: Iterable[str] = (),
    usage: Counter[str] | None = None,
    near: NearDuplicates | None = None,
    epoch_cap: int = 2,
    max_tokens: int = 1000,
) -> DataGate:
    counted = usage if usage is not None else Counter[str]()
    policy = GatePolicy(max_tokens=max_tokens, epoch_cap=epoch_cap)
    return DataGate(policy, frozenset(held_out), words, lambda keys: {key: counted[key] for key in keys}, near)


def verdicts(gate: DataGate, *examples: Example | DataError) -> list[Accepted | Quarantined]:
    return list(gate.examine(enumerate(examples, start=1)))


def reasons(gate: DataGate, *examples: Example | DataError) -> list[str | None]:
    return [v.reason if isinstance(v, Quarantined) else None for v in verdicts(gate, *examples)]


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (DataError("rows.jsonl:1: not JSON"), "unreadable"),
        (Example.ask("", "3", family="chain_sum"), "schema"),
        (Example.ask("1+2=", "  ", family="chain_sum"), "schema"),
        (Example.model_validate({"messages": [{"role": "user", "content": "1+2="}]}), "schema"),
        (Example.model_validate({"messages": [{"role": "assistant", "content": "3"}]}), "schema"),
        (Example(messages=(*Example.ask(" ", "3").messages, *Example.ask("Q", "A").messages)), "schema"),
        (Example.ask("1+2=", "1+2=4", family="chain_sum"), "gold"),
        (Example.ask("1+2=", "Error: 3", family="chain_sum"), "gold"),
        (Example.ask("Q", "Error: out of memory", grader="normalized"), "gold"),
        (Example.ask("Q", "A", grader="normalized", gold="B"), "gold"),
        (Example.ask("How many?", "many", grader="numeric"), "gold"),
        (Example.ask("What is love?", "3", family="chain_sum"), "unknown_question"),
        (Example.ask("1+2=", "1+2=3", family="chain_sum", level=2), "unknown_question"),
        (Example.ask("Q", "A", grader="regex"), "unknown_question"),
        (Example.ask("Q", "A", grader="fuzzy"), "unknown_question"),
        (Example.ask("Q", "A", family="rg:nothing"), "unknown_question"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(example: Example | DataError, reason: str) -> None:
    one = gate()
    (verdict,) = verdicts(one, example)
    assert isinstance(verdict, Quarantined)
    assert (verdict.line, verdict.reason) == (1, reason)
    assert verdict.detail
    assert verdict.example == (example if isinstance(example, Example) else None)
    assert Quarantined.model_validate_json(verdict.to_line()) == verdict
    assert one.report.reasons == {reason: 1}


def test_a_good_row_gets_its_key() -> None:
    for example in (SUM, TEXT):
        (verdict,) = verdicts(gate(), example)
        assert isinstance(verdict, Accepted)
        assert verdict.example.messages == example.messages
        assert verdict.example.metadata == {**example.metadata, "key": item_key(example)}
        assert verdict.tokens == words(example)


def test_a_held_out_item_is_a_leak_in_any_wording_or_profile() -> None:
    padded = Example.ask(" 1+2= ", "3", family="chain_sum", level=1)
    assert reasons(gate(held_out=["chain_sum:1+2"]), SUM, padded) == ["leak", "leak"]
    assert reasons(gate(held_out=[item_key(TEXT)]), Example.ask("where does the cat  sleep at night", "x")) == ["leak"]


def test_a_sum_is_not_near_another_sum() -> None:
    other = Example.ask("1+3=", "1+3=4", family="chain_sum", level=1)
    near = NearDuplicates(held_out=[SUM.question])
    assert reasons(gate(near=near), other) == [None]


STORY = (
    "Mary went to the kitchen after breakfast and took the red apple from the small table near the window "
    "before she walked slowly back to the garden where John was waiting for her with the dog."
)


def test_nearly_a_held_out_text_is_a_leak_whatever_its_answer() -> None:
    near = NearDuplicates(held_out=[STORY])
    changed = Example.ask(STORY.replace("the dog", "the cat"), "another answer", grader="normalized")
    assert reasons(gate(near=near), changed) == ["near_leak"]


def test_a_long_instruction_that_rows_share_makes_no_leak() -> None:
    held_out = [f"{STORY} Where is {name}?" for name in ("Ann", "Bea", "Cem", "Dan")]
    one = gate(near=NearDuplicates(held_out, common=common_runs(held_out)))
    rows = [
        Example.ask(f"{STORY} Where is {name}?", "garden", grader="normalized") for name in ("Eve", "Fay", "Dan, then")
    ]
    assert reasons(one, *rows) == [None, None, "near_leak"]


def test_texts_without_words_are_compared_whole() -> None:
    near = NearDuplicates(held_out=["🐈🐈🐈"])
    signs = [Example.ask(text, "animal", grader="normalized") for text in ("🐕🐕", "🐈🐈🐈", "🐕🐕🐕")]
    assert reasons(gate(near=near), *signs) == [None, "near_leak", None]


def test_other_numbers_make_another_text() -> None:
    text = f"{STORY} She paid 3 dollars."
    near = NearDuplicates(held_out=[text])
    assert reasons(gate(near=near), Example.ask(text.replace("3", "5"), "5", grader="numeric")) == [None]


def test_nearly_the_same_text_is_a_repeat_only_with_the_same_answer() -> None:
    first = Example.ask(STORY, "garden", grader="normalized")
    same = Example.ask(STORY.replace("slowly ", ""), "garden", grader="normalized")
    other = Example.ask(STORY.replace("the dog", "the cat"), "kitchen", grader="normalized")
    assert reasons(gate(), first, same, other) == [None, "near_duplicate", None]


def test_free_text_is_in_a_batch_once() -> None:
    assert reasons(gate(epoch_cap=9), TEXT, TEXT) == [None, "duplicate"]


def test_an_item_of_a_finite_level_may_be_repeated_up_to_the_epoch_cap() -> None:
    usage = Counter({"chain_sum:1+2": 1})
    assert reasons(gate(usage=usage, epoch_cap=3), SUM, SUM, SUM) == [None, None, "epoch_cap"]
    assert reasons(gate(usage=Counter({item_key(TEXT): 3}), epoch_cap=3), TEXT) == ["epoch_cap"]


def test_usage_counts_are_looked_up_for_the_rows_at_hand_alone() -> None:
    asked: list[set[str]] = []

    def usage(keys: Collection[str]) -> dict[str, int]:
        asked.append(set(keys))
        return dict.fromkeys(keys, 1)

    rows = [Example.ask(f"Where is number {n}?", "here", family="cats", grader="normalized") for n in range(1_200)]
    one = DataGate(GatePolicy(max_tokens=99, epoch_cap=2), frozenset(), words, usage)
    assert all(isinstance(verdict, Accepted) for verdict in one.examine(enumerate(rows, start=1)))
    assert [len(keys) for keys in asked] == [500, 500, 200]


def test_an_endless_family_gives_an_item_once_a_batch() -> None:
    example = to_example(registry.get("rg:spell_backward").generate(1, 5), "test")
    assert reasons(gate(epoch_cap=9), example, example) == [None, "duplicate"]


def test_a_refused_row_does_not_count_as_seen() -> None:
    long = Example.ask(TEXT.question, "on the mat, I think", family="cats", grader="normalized")
    assert reasons(gate(max_tokens=10), long, TEXT) == ["too_long", None]


def test_the_report_adds_up_and_notices_exhausted_levels() -> None:
    one = gate(epoch_cap=1)
    verdicts(one, SUM, SUM, SUM, TEXT, DataError("x"))
    report = one.report
    assert (report.rows, report.accepted) == (5, 2)
    assert report.tokens == words(SUM) + words(TEXT)
    assert report.reasons == {"epoch_cap": 2, "unreadable": 1}
    assert report.levels == {"cats/1": 1, "chain_sum/1": 1}
    assert report.exhausted == ("chain_sum/1",)


@pytest.mark.parametrize("name", ["gsm8k_200", "babi_qa1_100", "syllo_easy_50"])
def test_real_rows_pass_and_pass_once(name: str) -> None:
    one = gate()
    rows = list(read_examples(DATA / f"{name}.jsonl"))
    assert all(isinstance(verdict, Accepted) for verdict in one.examine(rows))
    two = gate()
    again = [*rows, *rows]
    assert [verdict.line for verdict in two.examine(again) if isinstance(verdict, Accepted)] == [n for n, _ in rows]
    assert two.report.reasons == {"duplicate": len(rows)}


def test_real_rows_that_ask_the_same_twice_are_found() -> None:
    one = gate()
    verdicts = list(one.examine(read_examples(DATA / "binary_100.jsonl")))
    assert one.report.reasons == {"duplicate": 5}
    assert one.report.accepted == 95
    keys = Counter(item_key(v.example) for v in verdicts if v.example is not None)
    assert len(keys) == 95


def test_memory_does_not_grow_with_the_batch() -> None:
    def peak(rows: int) -> int:
        texts = (Example.ask(f"question {n} of many", "yes", grader="normalized") for n in range(rows))
        one = gate(near=NearDuplicates(window=100))
        tracemalloc.start()
        try:
            assert sum(isinstance(verdict, Accepted) for verdict in one.examine(enumerate(texts))) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(4000) < 1.5 * peak(1000)


def test_no_more_rows_are_read_than_are_asked_about_at_once() -> None:
    read: list[int] = []

    def rows() -> Iterator[tuple[int, Example]]:
        for number in range(1, 1_200):
            read.append(number)
            yield number, SUM

    stream = gate(epoch_cap=9).examine(rows())
    next(stream)
    assert len(read) == 500


class Falls(PromptFormat):
    """A profile with a mistake in its code."""

    def apply(self, example: Example) -> Example:
        if "zero" in example.question:
            raise ZeroDivisionError("division by zero")
        return super().apply(example)


def test_a_row_on_which_a_plug_in_fails_is_quarantined_and_the_others_go_on() -> None:
    one = DataGate(GatePolicy(max_tokens=99, epoch_cap=2), frozenset(), words, prompt_format=Falls())
    bad = Example.ask("What is one by zero?", "much", family="maths", grader="normalized")
    assert reasons(one, SUM, bad, TEXT) == [None, "plugin", None]
    assert one.report.reasons == {"plugin": 1}


def test_a_row_is_judged_as_its_profile_trains_it() -> None:
    policy = GatePolicy(max_tokens=33, epoch_cap=2)
    strict = DataGate(policy, frozenset(), words, prompt_format=PromptFormat.named("regime3"))
    marked = Example.ask("What is 2+3?", "so <<ANS_START>> (add 2 3) <<ANS_END>>", grader="prefix", gold="5")
    broken = Example.ask("What is 2+4?", "<<ANS_START>> (plus 2 4) <<ANS_END>>", grader="prefix", gold="6")
    long = Example.ask("What is 1 + 1 + 1 + 1 + 1?", "5", grader="numeric")
    assert reasons(strict, marked, broken, long) == [None, "schema", "too_long"]
    assert reasons(gate(max_tokens=33), marked, long) == ["gold", None]


def test_a_judgement_on_a_held_out_item_is_a_leak_and_a_false_one_is_no_gold() -> None:
    held = HoldOut(seed=3, share=0.5)
    problems = [registry.get("chain_sum").generate(1, seed) for seed in range(40)]
    rows = [to_example(judgement(problem, problem.gold), "test") for problem in problems]
    one = DataGate(GatePolicy(max_tokens=99, epoch_cap=2), held, words)
    said = [v.reason if isinstance(v, Quarantined) else None for v in one.examine(enumerate(rows, start=1))]
    leaks = [problem.key in held for problem in problems]
    assert [reason == "leak" for reason in said] == leaks
    assert {True, False} == set(leaks)
    assert reasons(gate(), Example.ask(rows[0].question, "wrong", family="judge", level=1)) == ["gold"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_row_is_counted_as_it_is_trained_on(model: Path) -> None:
    own = chat_template(build_tiny_tokenizer())
    for question, answer in (("12+3=", "12+3=15"), ("⓪①, sort:72", "é <|im_end|>"), ("the answer is", "x " * 50)):
        row = Example.ask(question, answer)
        assert TokenCounter(model)(row) == len(own.training_ids(row.messages).ids)


def test_a_row_that_the_template_refuses_is_quarantined_alone(model: Path, tmp_path: Path) -> None:
    strict = Path(shutil.copytree(model, tmp_path / "strict"))
    template = (strict / "chat_template.jinja").read_text()
    refusal = "{% if messages | length > 2 %}{{ raise_exception(reason) }}{% endif %}"
    (strict / "chat_template.jinja").write_text(refusal + template)
    counter = TokenCounter(strict, {"reason": "one question only"})
    one = DataGate(GatePolicy(max_tokens=99, epoch_cap=2), frozenset(), counter)
    twice = Example(messages=(*Example.ask("a", "b").messages, *Example.ask("c", "d").messages))
    accepted, refused, last = one.examine(enumerate([TEXT, twice, Example.ask("e", "f")], start=1))
    assert isinstance(refused, Quarantined)
    assert (refused.line, refused.reason) == (2, "template")
    assert "refuses turns of user, assistant, user, assistant: one question only" in refused.detail
    assert isinstance(accepted, Accepted)
    assert isinstance(last, Accepted)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenCheckpoint, match="is not there"):
        TokenCounter(tmp_path)


def test_the_gate_needs_no_torch() -> None:
    program = (
        "import sys, miner.data_gate;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'scipy', 'celery', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def composed(epoch_cap: int = 3) -> DataGate:
    """The gate for a batch that is made of stored rows."""
    policy = GatePolicy(max_tokens=1000, epoch_cap=epoch_cap, repeats_text=True)
    return DataGate(policy, frozenset(), words)


def test_a_batch_made_of_stored_rows_may_hold_a_row_as_often_as_the_epoch_cap_allows() -> None:
    alike = Example.ask("Where does the cat sleep at night, then?", "on the mat", family="cats", grader="normalized")
    assert reasons(composed(), TEXT, alike, TEXT, alike) == [None] * 4
    assert reasons(composed(), *[TEXT] * 4) == [None, None, None, "epoch_cap"]
    assert reasons(gate(epoch_cap=3), TEXT, TEXT) == [None, "duplicate"]


def test_a_row_that_the_task_has_already_is_a_duplicate() -> None:
    near = TEXT.model_copy(update={"messages": Example.ask("Where does the cat sleep at night", "on the mat").messages})
    other = Example.ask("Where does the dog sleep in the day?", "in the hall", family="cats", grader="normalized")
    one = DataGate(GatePolicy(max_tokens=99, epoch_cap=9), frozenset(), words, stored=(TEXT,))
    said = verdicts(one, TEXT, near, other)
    assert [v.reason if isinstance(v, Quarantined) else None for v in said] == ["duplicate", "duplicate", None]
    assert isinstance(said[0], Quarantined)
    assert said[0].detail == "this question is among the task's rows already."


@pytest.mark.parametrize("metric", ["loss", "judge"])
def test_free_text_needs_an_answer_and_no_grader(metric: str) -> None:
    letter = Example.ask("Write to Ann.", "Dear Ann, how are you?", family="mail", metric=metric, gold="another")
    empty = Example.ask("Write to Bob.", " ", family="mail", metric=metric)
    assert reasons(gate(), letter, empty) == [None, "schema"]


def test_chats_of_several_turns_pass_with_their_last_answer() -> None:
    turns = [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "Bye"),
        ("assistant", "See you."),
    ]
    chat = Example.model_validate(
        {
            "messages": [{"role": role, "content": text} for role, text in turns],
            "metadata": {"family": "talk", "level": 1, "metric": "loss"},
        }
    )
    assert reasons(gate(), chat) == [None]


def test_a_held_out_row_is_told_as_held_out_and_not_by_its_key() -> None:
    (verdict,) = verdicts(gate(held_out=[item_key(TEXT)]), TEXT)
    assert isinstance(verdict, Quarantined)
    assert (verdict.reason, verdict.detail) == (
        "leak",
        "this question is held out for testing, so it is not trained on.",
    )
