"""Rows as users have them: four record shapes, nested metadata, circled digits, JSON answers, long prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from ratchet.inference.tiny import build_tiny_model, build_tiny_tokenizer
from ratchet.profiles.profile import get_profile
from trainer.core import TrainingResult
from trainer.dataset import TrainingRows, examples_of, prepare_rows
from trainer.segment import ErrorKind

DATA = Path(__file__).parents[2] / "data"
FILES = sorted(DATA.glob("*.jsonl"))
ROWS = 12


@pytest.fixture
def first_rows(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The first rows of a file: enough for its shapes, few enough for a quick run."""
    lines = request.param.read_text(encoding="utf-8").splitlines(keepends=True)[:ROWS]
    path = tmp_path / request.param.name
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_real_files_exist() -> None:
    assert len(FILES) >= 4


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_row_is_rendered_with_its_answer_trained(file: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    answers = [example.answer for _, example in examples_of(file)]
    rows = prepare_rows(
        examples_of(file), get_profile("plain"), tokenizer, system_prompt="Be brief.", max_length=100_000
    )
    assert len(rows) == len(answers)
    trained = [tokenizer.decode(row.ids[row.trained]) for row in rows.rows]
    assert trained == [f"{answer}<|im_end|>" for answer in answers]


@pytest.mark.parametrize("first_rows", FILES, indirect=True, ids=lambda file: file.stem)
def test_a_run_trains_on_them(train: Callable[..., TrainingResult], first_rows: Path, tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "roomy", max_position_embeddings=4096)
    result = train(first_rows, model__path=str(model), hyperparams__batch_size=2, hyperparams__max_length=4096)
    assert result.success, result.error_message
    assert result.finished
    assert result.summary["rows"] + result.summary["rows_too_long"] == ROWS
    curve = result.summary["loss_curve"]
    assert curve[-1][1] < 5.9, "the loss of guessing is ln 337 = 5.82"


Row = dict[str, Any]
END = "<|im_end|>"


def real(name: str, count: int) -> list[Row]:
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


def written(folder: Path, rows: Iterable[Row]) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(path: Path) -> TrainingRows:
    plain, tokenizer = get_profile("plain"), build_tiny_tokenizer()
    return prepare_rows(examples_of(path), plain, tokenizer, system_prompt="", max_length=100_000)


def asked(row: Row, answer: Any, **more: Any) -> Row:
    """The row's question, as the messages shape has it, with this answer."""
    messages = [{"role": "user", "content": row["user_prompt"]}, {"role": "assistant", "content": answer}]
    return {**more, "messages": messages}


def numbers() -> list[tuple[Row, str]]:
    rows = real("gsm8k_200", ROWS)
    bare = [({**row, "expected_answer": float(row["expected_answer"])}, row["expected_answer"] + ".0") for row in rows]
    return bare + [(asked(row, int(row["expected_answer"])), row["expected_answer"]) for row in rows]


def objects() -> list[tuple[Row, str]]:
    """Answers that are JSON objects instead of text."""
    found = []
    for row in real("syllo_easy_50", 50):
        *before, last = row["messages"]
        try:
            parsed = json.loads(last["content"])
        except ValueError:
            continue
        turns = [*before, {**last, "content": parsed}]
        found.append(({**row, "messages": turns}, json.dumps(parsed, ensure_ascii=False)))
    return found


def lists() -> list[tuple[Row, str]]:
    """Words as a list, and text in parts as chat APIs have it."""
    rows = real("babi_qa1_100", ROWS)
    words = [(asked(row, [row["expected_answer"], 1, True]), f'["{row["expected_answer"]}", 1, true]') for row in rows]
    parts = [{"type": "text", "text": "In the "}]
    in_parts = [asked(row, [*parts, {"type": "text", "text": row["expected_answer"]}]) for row in rows]
    return words + [
        (row, f"In the {real_row['expected_answer']}") for row, real_row in zip(in_parts, rows, strict=True)
    ]


def turns() -> list[tuple[Row, str]]:
    """Two questions in one conversation: both answers are trained, and each of them ends."""
    rows = real("gsm8k_200", 2 * ROWS)
    found = []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        both = [turn for row in (first, second) for turn in asked(row, row["expected_answer"])["messages"]]
        found.append(({"messages": both}, f"{first['expected_answer']}{END}{second['expected_answer']}"))
    return found


def system_turns() -> list[tuple[Row, str]]:
    told = {"role": "system", "content": "Answer in circled digits."}
    return [
        ({"messages": [told, *asked(row, row["assistant_response"])["messages"]]}, row["assistant_response"])
        for row in real("binary_100", ROWS)
    ]


def emoji() -> list[tuple[Row, str]]:
    """Flags, families and skin tones: several code points for one character."""
    signs = "\U0001f914\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f1eb\U0001f1ee\U0001f44d\U0001f3fd"
    found = []
    for row in real("binary_100", ROWS):
        answer = f"{row['assistant_response']} {signs}"
        found.append(({**row, "user_prompt": f"{signs} {row['user_prompt']}", "assistant_response": answer}, answer))
    return found


def metadata() -> list[tuple[Row, str]]:
    """Unknown keys, nested and of any type, beside the row's own."""
    more = {"id": 7, "score": None, "tags": [{"deep": [1, [2, None]]}], "weights": {"a": 0.5}}
    rows = real("gsm8k_200", ROWS)
    return [({**row, **more, "metadata": {**row["metadata"], **more}}, row["expected_answer"]) for row in rows]


KINDS = {kind.__name__: kind for kind in (numbers, objects, lists, turns, system_turns, emoji, metadata)}


@pytest.mark.parametrize("kind", KINDS)
def test_real_rows_of_every_kind_train_their_answers(kind: str, tmp_path: Path) -> None:
    pairs = KINDS[kind]()
    assert len(pairs) >= ROWS
    rows = prepared(written(tmp_path, (row for row, _ in pairs)))
    tokenizer = build_tiny_tokenizer()
    assert [tokenizer.decode(row.ids[row.trained]) for row in rows.rows] == [f"{answer}{END}" for _, answer in pairs]


def test_a_run_trains_on_all_kinds_in_one_file(train: Callable[..., TrainingResult], tmp_path: Path) -> None:
    rows = [row for kind in KINDS.values() for row, _ in kind()[:3]]
    model = build_tiny_model(tmp_path / "roomy", max_position_embeddings=4096)
    settings = {"hyperparams__batch_size": 4, "hyperparams__max_length": 4096, "hyperparams__num_epochs": 2}
    result = train(written(tmp_path, rows), model__path=str(model), **settings, monitoring__logging_steps=1)
    assert result.finished, result.error_message
    assert result.summary["rows"] == 2 * len(rows)
    assert result.summary["loss_curve"][-1][1] < result.summary["loss_curve"][0][1]


REFUSED: dict[str, tuple[Any, str]] = {
    "null": (None, "mine.jsonl:5: messages: turn 2 (assistant) is null"),
    "a picture": (
        [{"type": "image_url", "image_url": {"url": "x"}}],
        "mine.jsonl:5: messages: turn 2 (assistant) has parts of type",
    ),
    "a control character": ("a\0b", "mine.jsonl:5: contains a NUL character"),
    "half a sign": ("\ud83e", "mine.jsonl:5: messages: turn 2 (assistant) contains an unpaired surrogate"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_real_row_without_a_text_is_refused_by_file_and_line(
    train: Callable[..., TrainingResult], tmp_path: Path, kind: str
) -> None:
    """A run ends there; the gate before the queue quarantines that row alone, with the same words."""
    content, said = REFUSED[kind]
    rows = real("gsm8k_200", ROWS)
    path = written(tmp_path, rows[:4])
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in (asked(rows[4], content), rows[5]))
    result = train(path)
    assert result.error_kind is ErrorKind.DATA
    assert said in str(result.error_message)
