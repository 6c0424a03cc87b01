"""The deployer against the real inference server's application and manager, holding made-up models."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvicorn
from deployer.systems.deployment import SYSTEM as DEPLOYMENT
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.regression import SYSTEM as REGRESSION
from pydantic import SecretStr
from ratchet.data.example import Example
from ratchet.events.catalogue import CheckpointEvaluated, EvaluationRequested
from ratchet.inference.generator import Chat, Decoding, Generation, Reply
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import (
    BlockRow,
    ChallengeRow,
    CheckpointRow,
    DeploymentRow,
    EvaluationRequestRow,
    EvaluationRow,
    ServingRow,
    SuiteRow,
)
from ratchet.serving.app import build_app
from ratchet.serving.client import ServingClient
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.protocol import Conditions
from ratchet.serving.server_home import StateFile
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.user_tasks.add import Choice
from sqlalchemy.orm import Session

from tests.support.bus import InProcessBus
from tests.support.home import Home, Knows, small_home
from tests.support.user_tasks import home_of_tasks
from tests.support.workers import wait_until

TOKEN = "for tests"
SURE = 0.95


class OneStep:
    """The batch of clients' requests, each of which is answered in its first step. What ``stalls`` answers none."""

    requests: ClassVar[list[Any]] = []

    def __init__(self, model: Model):
        self._model = model

    def fitting(self, prompts: list[Any]) -> int:
        return len(prompts)

    def advance(self, joining: list[Any]) -> list[Any]:
        for pending in joining:
            if not self._model.stalls():
                pending.settle(self._model.answer(pending.prompt))
        return []


@dataclass
class Model:
    """Answers known items by their solution. ``drifts`` tells whether it computes differently than when it was judged,
    ``stalls`` when clients get no answer."""

    weights: str
    knows: Knows
    items: dict[str, Example]
    drifts: Callable[[], bool] = lambda: False
    stalls: Callable[[], bool] = lambda: False
    asked: Callable[[], None] = lambda: None
    heard: list[Chat] = field(default_factory=list)

    @property
    def hardware(self) -> Conditions:
        return Conditions(engine="made-up", dtype="fp32", gpu_class="cpu")

    def generate(self, chats: list[Chat], _decoding: Decoding) -> list[Generation]:
        if len(chats) > 1:  # not the warm-up of a load
            self.asked()
            self.heard += chats
        return [self.answer(chat) for chat in chats]

    def prompt(self, chat: Chat, _decoding: Decoding) -> Chat:
        return chat

    def score(self, chats: list[Chat], _answers: list[Reply]) -> list[tuple[float, ...]]:
        return [self._logprobs() for _ in chats]

    def continuous_batch(self, _max_rows: int) -> OneStep:
        return OneStep(self)

    def close(self) -> None:
        """Nothing is held."""

    def answer(self, chat: Chat) -> Generation:
        item = self.items.get(chat[-1].content)
        return Generation(
            text=str(item.answer) if item is not None and self.knows(item) else "wrong",
            token_ids=(1, 2),
            token_logprobs=self._logprobs(),
            finish_reason="stop",
            prompt_tokens=1,
            latency_s=0.0,
            weights=self.weights,
        )

    def _logprobs(self) -> tuple[float, ...]:
        return (log(SURE / 2 if self.drifts() else SURE),) * 2


@dataclass
class Server:
    """The embedded server in a thread. ``start`` after ``stop`` is a restart; ``forget`` loses its state in between."""

    settings: Settings
    listener: socket.socket
    folder: Path
    models: dict[str, Model]
    manager: ModelManager = field(init=False)

    def start(self) -> None:
        self.manager = ModelManager(
            self.settings.serving, StateFile(self.folder), lambda _path, weights: self.models[weights]
        )  # type: ignore[arg-type,return-value]
        app = build_app(self.manager, self.settings.serving, SecretStr(TOKEN))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.listener.dup()]})
        self._thread.start()
        wait_until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def forget(self) -> None:
        (self.folder / "state.json").unlink()

    def live(self) -> str | None:
        return self.manager.live.checkpoint_id if self.manager.live else None

    def loaded(self) -> set[str]:
        return set(self.manager.health().loaded)

    def client(self) -> ServingClient:
        return ServingClient.from_settings(self.settings.serving, self.folder)


@dataclass
class Deploying:
    """A home with a server, and fake models with behaviour set by the tests."""

    home: Home
    server: Server

    def add(self, knows: Knows, judge: bool = True) -> str:
        """A newer checkpoint; ``judge`` gives it an eval record."""
        checkpoint = self.home.add_checkpoint()
        self._add_model(checkpoint, knows)
        if judge:
            self.home.add_record(checkpoint, "eval", knows, SURE)
        return checkpoint

    def add_base(self, knows: Knows) -> None:
        self._add_model(self.home.base_id(), knows)
        self.home.add_record(self.home.base_id(), "eval", knows, SURE)

    def model(self, checkpoint_id: str) -> Model:
        return self.server.models[self.checkpoint(checkpoint_id).weights]

    def bus(self, *, without_testing: bool = False) -> InProcessBus:
        """A fresh worker of each judge, of deployment, and of a testing that answers requests from what models know."""
        judges = (REGRESSION, COMPARISON, CALIBRATION)
        return self.home.bus(*judges, *(() if without_testing else (self._testing(),)), DEPLOYMENT)

    def sweep(self) -> list[str]:
        return [event.name for event in self.bus().sweep()]

    def do_not_watch(self) -> None:
        serving = self.home.settings.serving.model_copy(update={"watch_s": 0.0})
        self.home.settings = self.home.settings.model_copy(update={"serving": serving})

    def verdicts(self) -> dict[str, str]:
        return self.home.verdicts("deployment")

    def checkpoint(self, checkpoint_id: str) -> CheckpointRow:
        with self.home.ledger.read() as session:
            return session.get_one(CheckpointRow, checkpoint_id)

    def desired(self) -> ServingRow:
        with self.home.ledger.read() as session:
            return serving(session)

    def deployments(self) -> list[tuple[str, str]]:
        with self.home.ledger.read() as session:
            rows = session.query(DeploymentRow).order_by(DeploymentRow.id)
            return [(row.action, row.checkpoint_id) for row in rows]

    def challenges(self) -> list[tuple[str, int, str | None]]:
        with self.home.ledger.read() as session:
            rows = session.query(ChallengeRow).order_by(ChallengeRow.id)
            return [(row.challenger_id, row.k, row.outcome) for row in rows]

    def confirm_uses(self) -> int:
        with self.home.ledger.read() as session:
            return session.query(SuiteRow).where(SuiteRow.pool == "confirm").one().uses

    def blocked(self) -> list[str]:
        with self.home.ledger.read() as session:
            return [row.checkpoint_id for row in session.query(BlockRow)]

    def _add_model(self, checkpoint: str, knows: Knows) -> None:
        weights = self.checkpoint(checkpoint).weights
        items = {item.question: item for pool in ("eval", "confirm") for item in self.home.suite_items(pool)}
        self.server.models[weights] = Model(weights, knows, items)

    def _testing(self) -> System:
        def find(session: Session, _settings: Settings) -> list[Subject]:
            done = {(row.checkpoint_id, row.suite_id) for row in session.query(EvaluationRow)}
            asked = [(row.checkpoint_id, row.suite_id) for row in session.query(EvaluationRequestRow)]
            return [Subject("request", "/".join(pair)) for pair in asked if pair not in done]

        def do(work: Work) -> Outcome:
            checkpoint, _, suite = work.subject.id.partition("/")
            with work.read() as session:
                pool = session.get_one(SuiteRow, suite).pool
            self.home.add_record(checkpoint, pool, self.model(checkpoint).knows, SURE)
            return Verdict("evaluated", "", events=(CheckpointEvaluated(checkpoint_id=checkpoint, pools=(pool,)),))

        lane = Lane("test", (EvaluationRequested,), find, do)
        return System("testing", "3090", "", (CheckpointEvaluated,), 1.0, (lane,))


@pytest.fixture
def start_deploying(tmp_path: Path) -> Iterator[Callable[..., Deploying]]:
    """Make a home and a server with these serving settings and suites, and graded tasks of these files of tests/data.
    The base model answers nothing right.
    """
    opened: list[tuple[Any, Server]] = []

    def make(suites: dict[str, Any] | None = None, files: Sequence[str] = (), **serving_settings: Any) -> Deploying:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio sets no NODELAY
        listener.bind(("127.0.0.1", 0))
        token_file = tmp_path / "token"
        token_file.write_text(TOKEN)
        told = {
            "url": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "admin_token_file": token_file,
            "watch_s": 0.0,
            **serving_settings,
        }
        tasks = {file: Choice(metric="accuracy") for file in files}
        sections = {"serving": told, "suites": suites or {}}
        folder = tmp_path / "run"
        context = home_of_tasks(folder, tasks, **sections) if tasks else small_home(folder, **sections)
        home = context.__enter__()
        folder = tmp_path / "server"
        folder.mkdir()
        server = Server(home.settings, listener, folder, {})
        opened.append((context, server))
        deploying = Deploying(home, server)
        deploying.add_base(lambda _item: False)
        server.start()
        return deploying

    yield make
    for context, server in opened:
        server.stop()
        server.listener.close()
        context.__exit__(None, None, None)


@pytest.fixture
def deploying(start_deploying: Callable[..., Deploying]) -> Deploying:
    return start_deploying()
