"""The Playground in a browser: answers that grow side by side, and what is done with them."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from playwright.sync_api import Page, expect
from ratchet.ledger.tables import CheckpointRow
from sqlalchemy import select

from tests.support.pages import Served
from tests.support.served_apps import served
from tests.support.visits import PATIENCE_MS, Visit

HOSTILE = '<img src=x onerror="document.title=1"></div><script>document.title=2</script> **bold**\n  two spaces'


@dataclass
class Model:
    """A made-up inference server that answers word by word, as the test lets it."""

    loaded: list[str]
    words: dict[str, list[str]] = field(default_factory=dict)
    goes_on: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    breaks: bool = False

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> dict[str, Any]:
            live = {"checkpoint_id": self.loaded[0], "weights": "w", "fencing_token": 1}
            return {"live": live, "loaded": dict.fromkeys(self.loaded, "w"), "waiting": 0, "uptime_s": 1.0}

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> StreamingResponse:
            asked = await request.json()
            self.asked.append(asked)
            return StreamingResponse(self._events(asked["model"]), media_type="text/event-stream")

        return app

    async def _events(self, model: str) -> AsyncIterator[str]:
        first, *others = self.words.get(model, ["3+4=", "7"])
        checkpoint = self.loaded[0] if model == "ratchet" else model
        try:
            yield chunk(checkpoint, first)
            while not self.goes_on.is_set():
                await asyncio.sleep(0.01)
        except BaseException:
            self.left.set()
            raise
        if self.breaks:
            raise ConnectionError("gone")
        for word in others:
            yield chunk(checkpoint, word)
        sure = {"confidence": 0.934, "should_abstain": False} if model == "ratchet" else {}
        yield chunk(checkpoint, "", "stop", **sure)
        yield "data: [DONE]\n\n"


def chunk(checkpoint: str, text: str, finish: str | None = None, **stated: Any) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'ratchet': {'checkpoint': checkpoint, **stated}})}\n\n"


@pytest.fixture(scope="module")
def stage(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Served]]:
    """The made-up server, which holds the newest two checkpoints of a made-up history, and its page."""
    home = shutil.copytree(template_home, tmp_path_factory.mktemp("playground") / "home")
    made = Model([])
    with served(made.app()) as url:
        page = Served(home, serving__url=url.replace("localhost", "127.0.0.1"))
        ledger = page.ledger
        with ledger.read() as session:
            newest = (
                select(CheckpointRow.id).where(CheckpointRow.state == "saved").order_by(CheckpointRow.ordinal.desc())
            )
            made.loaded += session.scalars(newest.limit(2))
        ledger.close()
        yield made, page
        made.goes_on.set()
        page.stop()


@pytest.fixture
def model(stage: tuple[Model, Served]) -> tuple[Model, Served]:
    """Both, with nothing asked yet; the server waits after the first word until it may go on."""
    server, page = stage
    server.words, server.asked, server.breaks = {}, [], False
    server.goes_on.clear()
    server.left.clear()
    return server, page


def ordinal(checkpoint: str) -> int:
    return int(checkpoint[1:].partition("-")[0])


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def test_answers_grow_side_by_side(model: tuple[Model, Served], visit: Visit) -> None:
    server, served_page = model
    other = server.loaded[1]
    server.words[other] = ["3+4=", "8"]
    page = visit(f"{served_page.url}/playground?model=live&model={ordinal(other)}&ask=3%2B4%3D")
    expect(page.get_by_label("Your question")).to_have_value("3+4=")
    page.keyboard.press("Enter")
    answers = page.locator(".answer")
    expect(answers).to_have_count(2)
    for answer in answers.all():
        expect(answer.locator("div.text")).to_have_text("3+4=")
        expect(answer).to_have_attribute("aria-busy", "true")
    server.goes_on.set()
    expect(answers.nth(0).locator("div.text")).to_have_text("3+4=7")
    expect(answers.nth(1).locator("div.text")).to_have_text("3+4=8")
    expect(answers.nth(0).locator(".sure")).to_have_text("93 % sure")
    expect(answers.nth(1).locator(".count")).to_contain_text("states no confidence")
    expect(answers.nth(1).locator(".from")).to_have_attribute("href", f"/checkpoints/{ordinal(other)}")
    assert "ask=" not in page.url


def test_a_conversation_goes_on_and_survives_a_reload(model: tuple[Model, Served], visit: Visit) -> None:
    server, served_page = model
    server.goes_on.set()
    page = visit(f"{served_page.url}/playground")
    for text in ("3+4=", "And now?"):
        ask(page, text)
        expect(page.locator("#send")).to_be_enabled()
    assert [turn["content"] for turn in server.asked[1]["messages"]] == ["3+4=", "3+4=7", "And now?"]
    page.get_by_label("Your question").fill("half a thought")
    page.reload()
    expect(page.locator(".exchange")).to_have_count(2)
    expect(page.locator(".answer div.text").last).to_have_text("3+4=7")
    expect(page.get_by_label("Your question")).to_have_value("half a thought")
    page.get_by_role("button", name="Clear the conversation").click()
    page.reload()
    expect(page.locator(".exchange")).to_have_count(0)


def test_stopping_ends_the_answer_at_the_server(model: tuple[Model, Served], visit: Visit) -> None:
    server, served_page = model
    page = visit(f"{served_page.url}/playground")
    ask(page, "3+4=")
    expect(page.locator(".answer div.text")).to_have_text("3+4=")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".answer .state")).to_have_text("stopped")
    assert server.left.wait(PATIENCE_MS / 1_000), "the server still answers"
    server.goes_on.set()
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".answer div.text")).to_have_text("3+4=7")


def test_an_answer_is_text_and_never_markup(model: tuple[Model, Served], visit: Visit) -> None:
    server, served_page = model
    server.goes_on.set()
    server.words["ratchet"] = [HOSTILE]
    page = visit(f"{served_page.url}/playground")
    ask(page, HOSTILE)
    shown = page.locator(".answer div.text")
    expect(page.locator("#send")).to_be_enabled()
    assert shown.text_content() == HOSTILE
    assert page.locator(".exchange img, .exchange script").count() == 0
    page.reload()
    assert page.locator(".answer div.text").text_content() == HOSTILE
    assert page.title().startswith("Playground")


def test_a_server_that_goes_away_is_told(model: tuple[Model, Served], visit: Visit) -> None:
    server, served_page = model
    server.breaks = True
    server.goes_on.set()
    page = visit(f"{served_page.url}/playground")
    ask(page, "3+4=")
    expect(page.locator(".answer .problem")).to_contain_text("went away in the middle")
    expect(page.locator(".answer div.text")).to_have_text("3+4=")


def test_models_are_chosen_by_the_address(model: tuple[Model, Served], visit: Visit) -> None:
    server, served_page = model
    server.goes_on.set()
    page = visit(f"{served_page.url}/playground")
    page.get_by_role("button", name="Add a model").click()
    page.wait_for_url("**/playground?model=live&model=0")
    page.get_by_label("Model 2").select_option(str(ordinal(server.loaded[1])))
    page.wait_for_url(f"**/playground?model=live&model={ordinal(server.loaded[1])}")
    page.get_by_role("button", name="Leave live").click()
    page.wait_for_url(f"**/playground?model={ordinal(server.loaded[1])}")


def test_an_answer_is_saved_as_an_example(model: tuple[Model, Served], visit: Visit) -> None:
    server, served_page = model
    server.goes_on.set()
    page = visit(f"{served_page.url}/playground")
    ask(page, "What is 3+4?")
    page.get_by_role("button", name="Save as an example").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Question")).to_have_value("What is 3+4?")
    dialog.get_by_label("Answer, as it should be").fill("7")
    dialog.get_by_label("Task, of yours or a new name").fill("my-sums")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("#saved")).to_contain_text("1 of 6 examples for the new task my-sums")
    expect(dialog).to_be_hidden()
    page.reload()
    expect(page.locator("#saved")).to_contain_text("1 of 6 examples for the new task my-sums")
