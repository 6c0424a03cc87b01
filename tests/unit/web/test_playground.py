"""The Playground: a real inference server and a real page, and a made-up server for what a real one seldom does."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from ratchet.evaluation.confidence import Certainty
from ratchet.ledger import Ledger
from ratchet.ledger.lineage import checkpoint_id, next_ordinal
from ratchet.ledger.tables import BatchRow, CheckpointRow, TaskRow
from ratchet.run.base_model import prepare_base_model
from ratchet.serving.app import build_app as build_server
from ratchet.serving.engine import model_loader
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.server_home import StateFile, server_token
from ratchet.settings import Settings
from ratchet.web.app import build_app
from ratchet.web.loaded_models import PREFIX
from sqlalchemy import select

from tests.support.home import Home, small_home
from tests.support.served_apps import PATIENCE_S, browser_of, served
from tests.support.tiny_model import build_tiny_model

QUESTION = [{"role": "user", "content": "3+4="}]
HOSTILE = "</div><script>alert(1)</script>\u202e\u2028\x1b[31m"


def base_model(spec: dict[str, Any]) -> dict[str, Any]:
    return prepare_base_model({**spec, "model": "tiny"}, lambda _: None)


def add_model(home: Home, folder: Path, seed: int) -> str:
    """A kept checkpoint that can answer."""
    model = build_tiny_model(folder / f"model-{seed}", seed=seed, initializer_range=0.3)
    artifact = home.artifacts.publish(model, "checkpoint", {})
    from ratchet.artifacts import weights_digest

    with home.ledger.write() as tx:
        ordinal, weights = next_ordinal(tx.session), weights_digest(artifact.manifest)
        row = CheckpointRow(
            id=checkpoint_id(ordinal, weights),
            ordinal=ordinal,
            parent_id=home_base(tx.session),
            step=ordinal,
            tokens=1,
            weights=weights,
            artifact=artifact.id,
            state_artifact=None,
            size_bytes=1,
            created_at=tx.now,
        )
        tx.session.add(row)
        return row.id


def home_base(session: Any) -> str:
    return str(session.scalars(select(CheckpointRow.id).where(CheckpointRow.ordinal == 0)).one())


def furnished_id(home: Home, ordinal: int) -> str:
    with home.ledger.read() as session:
        return session.scalars(select(CheckpointRow.id).where(CheckpointRow.ordinal == ordinal)).one()


@dataclass
class Room:
    """A home with its inference server and its page."""

    home: Home
    manager: ModelManager
    page: httpx.Client

    def ask(self, model: str, **options: Any) -> list[dict[str, Any]]:
        """The events of an answer."""
        response = self.page.post("/playground/answer", data={"chat": chat(model, **options)})
        assert response.status_code == 200, response.text
        return events(response)

    def names(self) -> list[str]:
        return list(self.manager.health().loaded)

    def go_live(self, checkpoint: str, certainty: Certainty | None = None, token: int = 1) -> None:
        with self.home.ledger.read() as session:
            row = session.get_one(CheckpointRow, checkpoint)
        self.manager.load(row.id, self.home.artifacts.fetch(row.artifact), row.weights)
        self.manager.switch(row.id, token, certainty)


def chat(model: str, **options: Any) -> str:
    return json.dumps({"model": model, "messages": QUESTION, **options})


def events(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.split("\n") if line]


def text(found: list[dict[str, Any]]) -> str:
    return "".join(event.get("text", "") for event in found)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with the base model and three checkpoints that can answer."""
    folder = tmp_path_factory.mktemp("playground")
    with small_home(folder / "home", base_model) as home:
        for seed in (3, 4, 5):
            add_model(home, folder, seed)
        yield home


@pytest.fixture
def make_room(furnished: Home) -> Iterator[Callable[..., Room]]:
    """Rooms over the home. ``serving`` are settings of both the server and the page."""
    closing: list[Any] = []

    def make(read_only: bool = False, **serving: Any) -> Room:
        settings = furnished.settings.model_copy(
            update={
                "serving": furnished.settings.serving.model_copy(update=serving),
                "web": furnished.settings.web.model_copy(update={"read_only": read_only}),
            }
        )
        home = settings.serving_home
        home.mkdir(parents=True, exist_ok=True)
        (home / "state.json").unlink(missing_ok=True)
        manager = ModelManager(settings.serving, StateFile(home), model_loader(Settings()))
        token = server_token(settings.serving, home)
        url = enter(served(build_server(manager, settings.serving, token)))
        (home / "server.json").write_text(json.dumps({"url": url}))
        page = enter(browser_of(enter(served(build_app(settings, furnished.ledger)))))
        return Room(Home(settings, furnished.ledger, furnished.artifacts), manager, page)

    def enter(context: Any) -> Any:
        closing.append(context)
        return context.__enter__()

    yield make
    for context in reversed(closing):
        context.__exit__(None, None, None)


@pytest.fixture
def room(make_room: Callable[..., Room], furnished: Home) -> Room:
    """#1 is live, and states its confidence about sums."""
    made = make_room()
    certainty = Certainty(
        kind="mean", temperature=1.0, threshold=0.999, precision=0.9, fitted_on=100, items={"chain_sum": 50}
    )
    made.go_live(furnished_id(furnished, 1), certainty)
    return made


def test_the_live_model_answers_token_by_token_with_its_confidence(room: Room) -> None:
    found = room.ask("live", max_tokens=20)
    assert found[0] == {"from": {"checkpoint": furnished_id(room.home, 1), "ordinal": 1}}
    assert sum("text" in event for event in found) > 1
    done = found[-1]["done"]
    assert 0 < done["confidence"] < 1
    assert done["should_abstain"] is True
    assert done["tokens"] <= 20


def test_sampled_answers_state_none(room: Room) -> None:
    done = room.ask("live", max_tokens=5, temperature=1.5)[-1]["done"]
    assert done["confidence"] is None


def test_another_checkpoint_is_loaded_under_a_name_of_the_pages_own(room: Room) -> None:
    found = room.ask("2", max_tokens=5)
    assert found[0]["state"].startswith("loading #2")
    assert [event["from"]["ordinal"] for event in found if "from" in event] == [2]
    assert [name.startswith(PREFIX) for name in room.names()] == [False, True]
    again = room.ask("2", max_tokens=5)
    assert "state" not in again[0], "it stays loaded"
    assert text(again) == text(found)


def test_models_differ_and_a_later_one_takes_the_place_of_the_pages_own(room: Room) -> None:
    answers = {name: text(room.ask(name, max_tokens=12)) for name in ("live", "2", "3")}
    assert len(set(answers.values())) == 3
    live, *others = room.names()
    assert live == furnished_id(room.home, 1)
    assert others == [PREFIX + furnished_id(room.home, 3)]


def test_two_are_asked_side_by_side_though_there_is_place_for_one(room: Room) -> None:
    async def both() -> list[list[dict[str, Any]]]:
        async with httpx.AsyncClient(
            base_url=room.page.base_url, headers=room.page.headers, cookies=room.page.cookies, timeout=PATIENCE_S
        ) as page:
            posts = [page.post("/playground/answer", data={"chat": chat(name, max_tokens=30)}) for name in ("2", "3")]
            return [events(response) for response in await asyncio.gather(*posts)]

    first, second = asyncio.run(both())
    assert "done" in first[-1]
    assert "done" in second[-1]
    assert len(room.names()) == 2


def test_what_the_deployer_has_loaded_is_used_and_never_unloaded(make_room: Callable[..., Room]) -> None:
    room = make_room(max_loaded=4)
    with room.home.ledger.read() as session:
        rows = list(session.scalars(select(CheckpointRow).order_by(CheckpointRow.ordinal)))
    for row in rows[:3]:
        room.manager.load(row.id, room.home.artifacts.fetch(row.artifact), row.weights)
    room.manager.switch(rows[0].id, 1)
    assert "state" not in room.ask("2", max_tokens=5)[0]
    room.ask("3", max_tokens=5)
    assert room.names() == [*(row.id for row in rows[:3]), PREFIX + rows[3].id]


def test_two_places_are_left_to_the_deployer(make_room: Callable[..., Room], furnished: Home) -> None:
    room = make_room(max_loaded=2)
    room.go_live(furnished.base_id())
    problem = room.ask("1")[-1]["problem"]
    assert "serving.max_loaded = 2 leaves no place" in problem
    assert "Loaded now: #0." in problem


def test_vllm_loads_nothing_for_the_page(make_room: Callable[..., Room], furnished: Home) -> None:
    room = make_room(engine="vllm")
    room.go_live(furnished.base_id())
    assert "behind vLLM" in room.ask("1")[-1]["problem"]


def test_without_the_token_what_is_loaded_is_offered(room: Room, tmp_path: Path) -> None:
    (room.home.settings.serving_home / "admin-token").write_text("another")
    problem = room.ask("2")[-1]["problem"]
    (room.home.settings.serving_home / "admin-token").unlink()
    assert "#2 is not loaded" in problem
    assert "serving.admin_token_file" in problem
    assert "Loaded now: #1." in problem


def test_a_deleted_checkpoint_says_so(room: Room) -> None:
    with room.home.ledger.write() as tx:
        row = tx.session.scalars(select(CheckpointRow).where(CheckpointRow.ordinal == 3)).one()
        row.state, row.reason = "deleted", "to free space"
    assert "#3 is deleted (to free space)" in room.ask("3")[-1]["problem"]
    with room.home.ledger.write() as tx:
        tx.session.scalars(select(CheckpointRow).where(CheckpointRow.ordinal == 3)).one().state = "saved"


def test_an_unknown_checkpoint_is_a_sentence(room: Room) -> None:
    assert "no checkpoint '99'" in room.ask("99")[-1]["problem"]


def test_a_browser_that_stops_ends_the_answer(room: Room) -> None:
    data = {"chat": chat("live", max_tokens=900)}
    with room.page.stream("POST", "/playground/answer", data=data) as response:
        for line in response.iter_lines():
            if '"text"' in line:
                break
        assert room.manager.in_flight == 1
    deadline = time.monotonic() + PATIENCE_S
    while room.manager.in_flight:
        assert time.monotonic() < deadline, "the answer goes on"
        time.sleep(0.02)
    assert room.manager.live is not None
    assert room.manager.live.traffic.read().generated_tokens < 900


def test_the_page_tells_what_is_loaded(room: Room) -> None:
    room.ask("2", max_tokens=2)
    found = room.page.get("/playground/server").json()
    assert (found["live"], found["loaded"]) == ("#1", ["#2"])


def test_a_read_only_page_asks_nothing(make_room: Callable[..., Room]) -> None:
    room = make_room(read_only=True)
    assert room.page.post("/playground/answer", data={"chat": chat("live")}).status_code == 409
    assert room.page.post("/playground/examples", data={}).status_code == 409
    assert 'id="ask"' not in room.page.get("/playground").text


@pytest.mark.parametrize("sent", ["", "[]", '{"model": "live"}', chat("live", temperature=9), chat("live", extra=1)])
def test_a_chat_that_the_page_would_not_send_is_refused(room: Room, sent: str) -> None:
    response = room.page.post("/playground/answer", data={"chat": sent})
    assert response.status_code == 409
    assert response.json()["error"]


def test_a_request_without_the_token_is_refused(room: Room) -> None:
    assert httpx.post(f"{room.page.base_url}/playground/answer", data={"chat": chat("live")}).status_code == 403


def test_the_address_names_models_and_a_question(room: Room) -> None:
    shown = room.page.get("/playground?model=2&model=base&model=2&model=nothing&ask=%22%3E%3Cb%3E").text
    assert """data-columns="[&#34;2&#34;,&#34;0&#34;]\"""" in shown
    assert "no checkpoint &#39;nothing&#39;" in shown
    assert 'data-ask="&#34;&gt;&lt;b&gt;"' in shown


# --- a server that misbehaves -----------------------------------------------------------------------------------------


def event(body: Any) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def piece(content: str, finish: str | None = None, **stated: Any) -> str:
    ratchet = {"checkpoint": "c0001-aaaaaa", **stated}
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return event({"choices": [choice], "ratchet": ratchet})


@pytest.fixture
def ask_of(home: Path, ledger: Ledger) -> Callable[[list[Any]], list[dict[str, Any]]]:
    """Asks a server that sends these pieces; an exception among them breaks the connection there."""

    def ask(pieces: list[Any], status: int = 200) -> list[dict[str, Any]]:
        app = FastAPI()

        @app.post("/v1/chat/completions", response_model=None)
        async def answer(_request: Request) -> StreamingResponse | JSONResponse:
            if status != 200:
                return JSONResponse(pieces[0], status_code=status)

            async def send() -> AsyncIterator[str]:
                for each in pieces:
                    if isinstance(each, Exception):
                        raise each
                    yield each

            return StreamingResponse(send(), media_type="text/event-stream")

        with served(app) as url:
            settings = Settings(home=home, serving={"url": url})
            with served(build_app(settings, ledger)) as page, browser_of(page) as browser:
                response = browser.post("/playground/answer", data={"chat": chat("live")})
                return events(response)

    return ask


def test_hostile_answers_arrive_as_they_are_and_as_data(ask_of: Callable[..., list[dict[str, Any]]]) -> None:
    found = ask_of(
        [piece(HOSTILE), piece("\r\nmore", "stop", confidence=0.5, should_abstain=False), "data: [DONE]\n\n"]
    )
    assert text(found) == f"{HOSTILE}\r\nmore"
    assert found[-1]["done"] == {"finish_reason": "stop", "confidence": 0.5, "should_abstain": False}


def test_a_server_that_goes_away_in_the_middle_is_told(ask_of: Callable[..., list[dict[str, Any]]]) -> None:
    found = ask_of([piece("3+"), ConnectionError("gone")])
    assert text(found) == "3+"
    assert "went away in the middle" in found[-1]["problem"]


def test_an_answer_without_an_end_is_no_answer(ask_of: Callable[..., list[dict[str, Any]]]) -> None:
    assert "went away in the middle" in ask_of([piece("3+")])[-1]["problem"]


def test_an_error_in_the_stream_is_told(ask_of: Callable[..., list[dict[str, Any]]]) -> None:
    found = ask_of([piece("3"), event({"error": {"message": "no answer within 120 s", "code": "timeout"}})])
    assert "no answer within 120 s" in found[-1]["problem"]
    assert found[-1]["problem"].startswith("the answer is cut off"), "its beginning is shown above"


def test_what_is_no_json_is_told(ask_of: Callable[..., list[dict[str, Any]]]) -> None:
    assert "no JSON" in ask_of(["data: <html>\n\n"])[-1]["problem"]


def test_a_refusal_is_told(ask_of: Callable[..., list[dict[str, Any]]]) -> None:
    found = ask_of([{"error": {"message": "no checkpoint is live yet.", "code": "nothing_live"}}], status=503)
    assert found == [{"problem": "no checkpoint is live yet. (503)"}]


def test_no_server_is_a_clear_sentence(home: Path, ledger: Ledger) -> None:
    settings = Settings(home=home, serving={"url": "http://127.0.0.1:9"})
    with served(build_app(settings, ledger)) as page, browser_of(page) as browser:
        for model in ("live", "base"):
            found = events(browser.post("/playground/answer", data={"chat": chat(model)}))
            assert found[-1]["problem"].startswith("no model answers at http://127.0.0.1:9: the run is starting")
        assert browser.get("/playground/server").json()["problem"].startswith("no model answers")


# --- examples ---------------------------------------------------------------------------------------------------------


CAPITALS = {
    "What is the capital of France?": "Paris",
    "In which city does the government of Japan sit?": "Tokyo",
    "Name the seat of Kenya's parliament.": "Nairobi",
    "Peru is governed from where?": "Lima",
    "Where would you find Norway's king & his palace?": "Oslo",
    "Which town is Canada's capital?": "Ottawa",
    "Tell me Egypt's largest city, also its capital.": "Cairo",
}


def save(room: Room, question: str) -> str:
    """Save an example, and wait for what is said of it."""
    fields = {"question": question, "answer": CAPITALS[question], "task": "capitals"}
    response = room.page.post("/playground/examples", data=fields)
    assert response.status_code == 200, response.text
    shown = response.text
    deadline = time.monotonic() + PATIENCE_S
    while "hx-get" in shown:
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)
        shown = room.page.get(shown.partition('hx-get="')[2].partition('"')[0]).text
    return unescape(shown)


@pytest.mark.slow
def test_answers_become_a_task_and_then_examples_of_it(room: Room) -> None:
    first, *others, sixth, seventh = CAPITALS
    assert "1 of 6 examples for the new task" in save(room, first)
    assert "1 of 6 examples" in save(room, first), "the same question replaces its answer"
    for question in others:
        save(room, question)
    assert "6 examples for capitals" in save(room, sixth)
    shown = save(room, seventh)
    assert "1 example for capitals" in shown
    with room.home.ledger.read() as session:
        task = session.get_one(TaskRow, "capitals")
        assert (task.kind, task.rows, task.metric) == ("user", 7, "accuracy"), shown
        batches = list(session.scalars(select(BatchRow).where(BatchRow.task == "capitals")))
        assert [batch.state for batch in batches] == ["submitted", "submitted"]


@pytest.mark.parametrize("task", ["General Knowledge", "chain_sum", "../up", "-x", ""])
def test_a_name_that_cannot_be_a_task_is_refused(room: Room, task: str) -> None:
    response = room.page.post("/playground/examples", data={"question": "a", "answer": "b", "task": task})
    assert response.status_code == 409


def test_an_example_needs_both(room: Room) -> None:
    fields = {"question": " ", "answer": "b", "task": "capitals"}
    assert "a question and an answer" in room.page.post("/playground/examples", data=fields).json()["error"]
