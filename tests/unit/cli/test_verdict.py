"""`ratchet verdict` on real models in folders, on a server, and on what the gate has decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from tests.support.served_apps import served
from tests.support.tiny_model import build_tiny_model

from .running import ratchet


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two untrained models with other weights."""
    folder = tmp_path_factory.mktemp("models")
    made = [build_tiny_model(folder / name, seed=seed, initializer_range=0.3) for name, seed in (("a", 3), ("b", 4))]
    return str(made[0]), str(made[1])


@pytest.fixture
def sums(tmp_path: Path) -> str:
    file = tmp_path / "sums.jsonl"
    rows = [{"question": f"{a} + {b} =", "answer": str(a + b)} for a in range(9) for b in range(9)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(file)


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_SUITES__MAX_NEW_TOKENS", "8")


@pytest.fixture
def server() -> Iterator[str]:
    """An OpenAI chat API whose model `good` is right, and whose model `bad` never is."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        asked = await request.json()
        first, _, second, _ = asked["messages"][-1]["content"].split()
        answer = str(int(first) + int(second)) if asked["model"] == "good" else "no idea"
        return {"choices": [{"message": {"content": answer}, "finish_reason": "stop"}], "usage": {}}

    with served(app) as url:
        yield url


def test_two_equal_models_are_not_better_and_the_answers_are_kept(
    models: tuple[str, str], sums: str, tmp_path: Path
) -> None:
    arguments = ["verdict", models[0], "--against", models[1], "--suite", sums, "--records", str(tmp_path / "kept")]
    first = ratchet(*arguments, "--out", str(tmp_path / "out"), code=1)
    assert "# Not better:" in first.stdout
    assert "0 of 81 answers changed, 0 of 81 grades" in first.stdout
    assert "81 of 81 items answered" in first.stderr
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["exit_code"] == 1
    assert (tmp_path / "out" / "verdict.md").read_text() == first.stdout
    again = ratchet(*arguments, "--json", code=1)
    assert "0 of 81 items" not in again.stderr  # nothing is answered again
    assert json.loads(again.stdout)["verdict"] == "not better"


@pytest.mark.parametrize(
    ("candidate", "base", "code", "said"), [("good", "bad", 0, "Better"), ("bad", "good", 2, "Worse")]
)
def test_two_models_of_a_server(server: str, sums: str, candidate: str, base: str, code: int, said: str) -> None:
    found = ratchet("verdict", f"{server}#{candidate}", "--against", f"{server}#{base}", "--suite", sums, code=code)
    assert found.stdout.startswith(f"# {said}: {server}#{candidate} against {server}#{base}")


def test_few_rows_cannot_tell_and_say_how_many_could(server: str, tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n} + 1 =", "answer": str(n + 1)}) + "\n" for n in range(3)))
    found = ratchet("verdict", f"{server}#good", "--against", f"{server}#bad", "--suite", str(file), "--json", code=3)
    assert json.loads(found.stdout)["items_needed"] > 3


def test_free_text_is_not_asked_of_a_server(server: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    text = "A gull that has learnt to open bins teaches it to the whole harbour within a year."
    file.write_text("".join(json.dumps({"question": f"gulls {n}", "answer": f"{text} {n}"}) + "\n" for n in range(9)))
    found = ratchet("verdict", f"{server}#good", "--against", f"{server}#bad", "--suite", str(file), code=4)
    assert "gives no loss of a text" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verdict", "A", "--against", "B"], "--against needs --suite FILE"),
        (["verdict", "A", "--suite", "B"], "--suite needs --against BASE"),
        (["verdict", "/nowhere", "--against", "B", "--suite", "rows.jsonl"], "no such folder"),
        (["verdict", "A", "--agains", "B"], "No such option"),
        (["verdict"], "Missing argument"),
        (["verdict", "7"], "ratchet run"),
    ],
)
def test_an_error_is_no_verdict(arguments: list[str], said: str) -> None:
    """Its exit code is none of the four."""
    assert said in ratchet(*arguments, code=4).stderr


def test_a_missing_package_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.cli.verdict.find_spec", lambda _name: None)
    assert "pip install 'shared[stats]'" in ratchet("verdict", "7", code=4).stderr
