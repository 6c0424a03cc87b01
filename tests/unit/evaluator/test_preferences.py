"""The LLM judge, asked over HTTP."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from evaluator.preferences import MOST_FAILURES, NOT_CONFIGURED, Judge, judge_id, judged, preference, read_reply
from evaluator.systems.testing import SYSTEM as TESTING
from evaluator.votes import KEPT, LONGEST_WAIT_S
from pydantic import SecretStr, ValidationError
from ratchet.data.example import Example
from ratchet.evaluation.load_evaluation import load_evaluation
from ratchet.evaluation.record import ItemRecord
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import SpendingRow
from ratchet.settings.judging import JudgeSettings
from ratchet.settings.serving import InferenceSettings
from ratchet.user_tasks.add import Choice

from tests.support.home import Home
from tests.support.user_tasks import home_of_tasks

from .systems.test_testing_system import ByHeart

Decide = Callable[[str, str], "str | int"]
"""What the judge replies to two answers, or the status that its server fails with."""


class JudgeServer(ThreadingHTTPServer):
    """The chat API of a judge that decides by ``decide``."""

    def __init__(self, decide: Decide):
        super().__init__(("127.0.0.1", 0), Handler)
        self.decide = decide
        self.asked: list[tuple[str, str]] = []
        self.authorization: str | None = None


class Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.authorization = self.headers["authorization"]
        shown = re.search(r"\[Answer A\]\n(.*)\n\n\[Answer B\]\n(.*)", body["messages"][0]["content"], re.DOTALL)
        assert shown is not None
        pair = shown[1], shown[2]
        self.server.asked.append(pair)
        reply = self.server.decide(*pair)
        status = reply if isinstance(reply, int) else 200
        message = {"content": "", "reasoning_content": "Hm."} if reply == "reasons" else {"content": reply}
        choice = {"message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 90, "completion_tokens": 10}
        content = json.dumps({"choices": [choice], "usage": usage} if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: ARG002
        return None


@pytest.fixture
def serve() -> Iterator[Callable[[Decide], JudgeServer]]:
    servers: list[JudgeServer] = []

    def start(decide: Decide) -> JudgeServer:
        server = JudgeServer(decide)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def settings(server: JudgeServer, **told: Any) -> JudgeSettings:
    return JudgeSettings(url=f"http://127.0.0.1:{server.server_port}", model="wise", **told)


def longer(first: str, second: str) -> str:
    """An upright judge: the longer answer is better, whatever the order."""
    return "TIE" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


REFERENCE = "a reference"
ITEM = Example.ask("Describe {first}.", REFERENCE, family="letters", metric="judge")


def record(answer: str) -> ItemRecord:
    return ItemRecord(
        item_id=ITEM.id,
        key="k",
        family="letters",
        level=1,
        answer=answer,
        extracted=answer or None,
        extraction="ok",
        correct=None,
        metric="judge",
        token_logprobs=(-0.1,),
        finish_reason="stop",
        latency_s=0.0,
    )


def judge(server: JudgeServer, answer: str, budget: int | None = None, **told: Any) -> ItemRecord:
    asked = Judge(settings(server, **told), InferenceSettings(concurrency=1), budget)
    (found,) = judged([record(answer)], {ITEM.id: ITEM}, asked, lambda *_: None)
    return found


@pytest.mark.parametrize(
    ("answer", "expected"), [("much longer than the reference", 1.0), ("short", 0.0), ("b reference", 0.5)]
)
def test_the_better_answer_wins_in_both_orders(serve: Callable[..., JudgeServer], answer: str, expected: float) -> None:
    server = serve(longer)
    assert judge(server, answer, api_key=SecretStr("key")).preference == expected
    assert server.asked == [(answer, REFERENCE), (REFERENCE, answer)]
    assert server.authorization == "Bearer key"


@pytest.mark.parametrize("always", ["A", "B"])
def test_a_judge_that_favours_a_position_gives_a_tie(serve: Callable[..., JudgeServer], always: str) -> None:
    assert judge(serve(lambda *_: always), "anything").preference == 0.5


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Both answers have their merits.", "unreadable reply: 'Both answers have their merits.'"),
        ("A and B", "unreadable reply"),
        (400, "the judge failed: "),
    ],
)
def test_an_error_or_an_unreadable_reply_is_no_vote(
    serve: Callable[..., JudgeServer], reply: str | int, reason: str
) -> None:
    found = judge(serve(lambda *_: reply), "anything")
    assert found.preference is None
    assert found.score is None
    assert str(found.no_vote).startswith(reason)


def test_an_empty_answer_loses_without_a_request(serve: Callable[..., JudgeServer]) -> None:
    server = serve(longer)
    assert judge(server, "").preference == 0.0
    assert server.asked == []


def test_beyond_the_budget_there_are_no_votes(serve: Callable[..., JudgeServer]) -> None:
    server = serve(longer)
    found = judge(server, "anything", budget=100)
    assert (found.preference, len(server.asked)) == (None, 1)
    assert found.no_vote == "the judge's budget of the day is spent (judge.daily_tokens)"


def test_a_judge_that_only_reasons_is_paid_for_and_given_up(serve: Callable[..., JudgeServer]) -> None:
    server = serve(lambda *_: "reasons")
    asked = Judge(settings(server), InferenceSettings(concurrency=1), None)
    found = judged([record("anything")] * 9, {ITEM.id: ITEM}, asked, lambda *_: None)
    assert len(server.asked) == MOST_FAILURES == asked.requests
    assert (asked.prompt_tokens, asked.answer_tokens) == (90 * MOST_FAILURES, 10 * MOST_FAILURES)
    assert "every answer was reasoning only" in str(found[0].no_vote)
    assert found[-1].no_vote == f"the judge failed {MOST_FAILURES} times in a row, and was not asked again"
    assert {each.preference for each in found} == {None}


def test_a_server_that_is_away_is_told_from_an_item_without_a_vote(serve: Callable[..., JudgeServer]) -> None:
    replies: list[tuple[str | int, Any]] = [(503, {ITEM.id: "server"}), (400, {}), ("Well.", {})]
    for reply, awaited in replies:
        asked = Judge(settings(serve(lambda *_, reply=reply: reply)), InferenceSettings(concurrency=1), None)
        judged([record("anything")], {ITEM.id: ITEM}, asked, lambda *_: None)
        assert asked.awaited == awaited
        assert asked.is_mute == (reply != "Well.")
    for daily_tokens, awaited in ((300, {ITEM.id: "budget"}), (0, {})):
        asked = Judge(settings(serve(longer), daily_tokens=daily_tokens), InferenceSettings(), 0)
        judged([record("anything")], {ITEM.id: ITEM}, asked, lambda *_: None)
        assert asked.awaited == awaited


def test_without_a_judge_there_are_no_votes() -> None:
    nobody = Judge(JudgeSettings(), InferenceSettings(), None)
    (found,) = judged([record("anything")], {ITEM.id: ITEM}, nobody, lambda *_: None)
    assert (found.preference, found.no_vote) == (None, NOT_CONFIGURED)


@pytest.mark.parametrize(("text", "first"), [("A", 1.0), (" b.\n", 0.0), ("**TIE**", 0.5), ("tie", 0.5)])
def test_a_reply_is_one_of_three_words(text: str, first: float) -> None:
    assert read_reply(text).first == first


def test_votes_are_combined_by_hand() -> None:
    a, b, tie, none = read_reply("A"), read_reply("B"), read_reply("TIE"), read_reply("?")
    told = [preference(*votes)[0] for votes in ((a, b), (b, a), (a, a), (a, tie), (tie, tie), (a, none))]
    assert told == [1.0, 0.0, 0.5, 0.5, 0.5, None]


def test_another_judge_or_template_makes_records_that_are_not_compared() -> None:
    plain = JudgeSettings(url="http://one", model="wise")
    other = plain.model_copy(update={"template": "{question} {first} {second}"})
    assert judge_id(plain) == judge_id(plain.model_copy(update={"url": "http://two"}))
    assert len({judge_id(plain), judge_id(other), judge_id(plain.model_copy(update={"model": "wiser"}))}) == 3
    with pytest.raises(ValidationError, match=r"lacks \{first\}, \{second\}"):
        JudgeSettings(template="{question}")


def test_testing_asks_the_judge_and_records_what_it_cost(tmp_path: Path, serve: Callable[..., JudgeServer]) -> None:
    server = serve(longer)
    told = {"url": f"http://127.0.0.1:{server.server_port}", "model": "wise"}
    with home_of_tasks(
        tmp_path / "run", {"babi_qa1_100.jsonl": Choice(task="rooms", metric="judge")}, judge=told
    ) as home:
        child = ByHeart()
        home.bus(TESTING, children=child).sweep()
        with home.ledger.read() as session:
            row = evaluation(session, home.base_id(), current(session, "eval").id)
            assert row is not None
            spent = session.query(SpendingRow).filter(SpendingRow.generator == "judge").all()
        assert row.scores == {"rooms": {**row.scores["rooms"], "metric": "judge", "mean": 0.5, "n": row.items}}
        assert child.graders["eval"].endswith(judge_id(home.settings.judge))
        assert {item.preference for item in load_evaluation(home.artifacts, row).items} == {0.5}
        assert sum(each.requests for each in spent) == len(server.asked) > 0
        assert {each.prompt_tokens / each.requests for each in spent} == {90}
        assert home.verdicts("testing") == {home.base_id(): "evaluated"}


def test_the_daily_budget_counts_what_the_ledger_knows(tmp_path: Path, serve: Callable[..., JudgeServer]) -> None:
    server = serve(longer)
    told = {"url": f"http://127.0.0.1:{server.server_port}", "model": "wise", "daily_tokens": 300}
    with home_of_tasks(
        tmp_path / "run", {"babi_qa1_100.jsonl": Choice(task="rooms", metric="judge")}, judge=told
    ) as home:
        home.bus(TESTING, children=ByHeart()).sweep()
        asked = len(server.asked)
        assert 3 <= asked <= 3 + home.settings.inference.concurrency
        home.add_checkpoint()
        home.bus(TESTING, children=ByHeart()).sweep()
        assert len(server.asked) == asked


def votes(home: Home, pool: str) -> list[float | None]:
    with home.ledger.read() as session:
        row = evaluation(session, home.base_id(), current(session, pool).id)
    return [] if row is None else [item.preference for item in load_evaluation(home.artifacts, row).items]


def test_testing_waits_for_the_budget_of_the_next_day_and_keeps_answers_and_votes(
    tmp_path: Path, serve: Callable[..., JudgeServer]
) -> None:
    server, child = serve(longer), ByHeart()
    told = {"url": f"http://127.0.0.1:{server.server_port}", "model": "wise", "daily_tokens": 300}
    tasks = {"babi_qa1_100.jsonl": Choice(task="rooms", metric="judge")}
    with home_of_tasks(tmp_path / "run", tasks, judge=told, inference={"concurrency": 1}) as home:
        home.bus(TESTING, children=child).sweep()
        assert home.verdicts("testing") == {}
        assert (len(server.asked), votes(home, "eval")) == (3, [])
        home.settings = home.settings.model_copy(
            update={"judge": home.settings.judge.model_copy(update={"daily_tokens": None})}
        )
        home.bus(TESTING, children=child).sweep()
        assert home.verdicts("testing") == {home.base_id(): "evaluated"}
        found = [*votes(home, "probe"), *votes(home, "eval")]
        assert set(found) == {0.5}
        assert len(server.asked) == 2 * len(found) + 1  # the vote that the budget had no second one for
        assert len(child.asked) == 1


def test_votes_are_waited_for_in_a_bounded_time(tmp_path: Path, serve: Callable[..., JudgeServer]) -> None:
    server = serve(longer)
    told = {"url": f"http://127.0.0.1:{server.server_port}", "model": "wise", "daily_tokens": 300}
    tasks = {"babi_qa1_100.jsonl": Choice(task="rooms", metric="judge")}
    with home_of_tasks(tmp_path / "run", tasks, judge=told, inference={"concurrency": 1}) as home:
        for age_s in (0.0, 0.9 * LONGEST_WAIT_S["budget"]):
            home.bus(TESTING, children=ByHeart()).sweep()
            assert home.verdicts("testing") == {}
            (kept,) = (home.settings.work_folder / "answers").rglob(KEPT)
            os.utime(kept, (kept.stat().st_mtime - age_s,) * 2)
        os.utime(kept, (kept.stat().st_mtime - 0.2 * LONGEST_WAIT_S["budget"],) * 2)
        home.bus(TESTING, children=ByHeart()).sweep()
        assert home.verdicts("testing") == {home.base_id(): "evaluated"}
        found = [*votes(home, "probe"), *votes(home, "eval")]
        assert (found.count(0.5), found.count(None)) == (1, len(found) - 1)


def test_a_judge_that_refuses_every_request_is_waited_for(tmp_path: Path, serve: Callable[..., JudgeServer]) -> None:
    """As with a key that has run out: no request is replied to, until the operator has mended it."""
    left = [0]

    def decide(first: str, second: str) -> str | int:
        left[0] -= 1
        return 401 if left[0] >= 0 else longer(first, second)

    server, child = serve(decide), ByHeart()
    told = {"url": f"http://127.0.0.1:{server.server_port}", "model": "wise"}
    tasks = {"babi_qa1_100.jsonl": Choice(task="rooms", metric="judge")}
    with home_of_tasks(tmp_path / "run", tasks, judge=told) as home:
        left[0] = len(home.suite_items("probe"))
        home.bus(TESTING, children=child).sweep()
        assert home.verdicts("testing") == {home.base_id(): "evaluated"}
        assert set(votes(home, "probe")) == {0.5}
        assert len(child.asked) == 1
