"""Loading, switching and unloading, and what a restart finds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint, TransientError
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_folder import weights_digest
from ratchet.serving.batcher import Batcher
from ratchet.serving.engine import ServedModel, model_loader
from ratchet.serving.http_errors import ApiError
from ratchet.serving.model_manager import WINDOW, ModelManager, TrafficMeter
from ratchet.serving.protocol import Conditions
from ratchet.serving.server_home import StateFile
from ratchet.settings import Settings
from ratchet.settings.serving import ServingSettings

from tests.support.adapters import build_adapter

MakeFleet = Callable[..., ModelManager]
GREEDY = Decoding(max_new_tokens=8, temperature=0.0)


def load(manager: ModelManager, checkpoint_id: str, folder: Path) -> None:
    manager.load(checkpoint_id, folder, weights_digest(folder))


@pytest.fixture
def manager(make_fleet: MakeFleet, blue: Path, green: Path) -> ModelManager:
    """Blue is live, green is loaded."""
    manager = make_fleet()
    load(manager, "blue", blue)
    load(manager, "green", green)
    manager.switch("blue", 5)
    return manager


def live(manager: ModelManager) -> str | None:
    return manager.live.checkpoint_id if manager.live else None


def test_one_of_several_loaded_checkpoints_is_live(manager: ModelManager) -> None:
    assert manager.resolve("ratchet").checkpoint_id == "blue"
    assert manager.names() == ["ratchet", "blue", "green"]
    manager.switch("green", 6)
    assert manager.resolve("ratchet").checkpoint_id == "green"


def test_adapters_on_another_host_are_fetched_with_their_base_and_served_merged(blue: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    artifacts = ArtifactStore(store.as_uri())
    base = artifacts.publish(blue, "checkpoint", {})
    adapters = build_adapter(tmp_path / "adapters", artifacts.fetch(base.id))
    weights = weights_digest(adapters)
    published = artifacts.publish(adapters, "checkpoint", {}, requires=[base.id])
    settings = Settings(home=tmp_path / "run", artifacts={"url": store.as_uri()})
    loaded = model_loader(settings)(Path("/another/host") / published.id, weights)
    assert loaded.weights == weights
    chat = (Message(role="user", content="1+1="),)
    here = LocalGenerator.load(artifacts.fetch(published.id))
    assert loaded.generate([chat], GREEDY)[0].token_ids == here.generate([chat], GREEDY)[0].token_ids
    with pytest.raises(BrokenCheckpoint, match="not the expected"):
        model_loader(settings)(artifacts.fetch(published.id), weights_digest(blue))


def test_the_same_load_and_switch_twice_change_nothing(manager: ModelManager, blue: Path) -> None:
    before = manager.resolve("ratchet")
    load(manager, "blue", blue)
    manager.switch("blue", 5)
    assert manager.resolve("ratchet") is before


def test_a_lower_fencing_token_is_refused(manager: ModelManager) -> None:
    with pytest.raises(ApiError, match="4 is lower than 5") as caught:
        manager.switch("green", 4)
    assert caught.value.status == 409
    assert live(manager) == "blue"


def test_a_checkpoint_that_is_not_loaded_cannot_go_live(manager: ModelManager) -> None:
    with pytest.raises(ApiError, match="no model 'red'"):
        manager.switch("red", 9)
    manager.switch("green", 5)


def test_an_id_keeps_its_weights(manager: ModelManager, green: Path) -> None:
    with pytest.raises(ApiError, match="is loaded with weights"):
        load(manager, "blue", green)


def test_another_digest_is_refused(make_fleet: MakeFleet, blue: Path, green: Path) -> None:
    with pytest.raises(ApiError, match="expected") as caught:
        make_fleet().load("blue", blue, weights_digest(green))
    assert caught.value.status == 422


def test_the_live_checkpoint_stays_loaded(manager: ModelManager) -> None:
    with pytest.raises(ApiError, match="blue is live"):
        manager.unload("blue")


def test_an_unloaded_checkpoint_is_unknown_and_may_be_unloaded_again(manager: ModelManager) -> None:
    manager.unload("green")
    manager.unload("green")
    with pytest.raises(ApiError, match="Known: ratchet, blue"):
        manager.resolve("green")


def test_the_number_of_loaded_checkpoints_is_limited(make_fleet: MakeFleet, blue: Path) -> None:
    manager = make_fleet(max_loaded=2)
    load(manager, "one", blue)
    load(manager, "two", blue)
    with pytest.raises(ApiError, match="unload one first"):
        load(manager, "three", blue)
    manager.unload("one")
    load(manager, "three", blue)


def test_the_alias_is_no_checkpoints_name(make_fleet: MakeFleet, blue: Path) -> None:
    with pytest.raises(ApiError, match="the name that clients use"):
        load(make_fleet(), "ratchet", blue)


def test_concurrent_loads_of_one_checkpoint_happen_once(make_fleet: MakeFleet, blue: Path) -> None:
    manager = make_fleet()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load(manager, "blue", blue), range(4)))
    assert list(manager.health().loaded) == ["blue"]


def test_a_restart_serves_the_same_checkpoint_and_keeps_the_token(
    manager: ModelManager, make_fleet: MakeFleet, green: Path
) -> None:
    manager.switch("green", 8)
    again = make_fleet()
    again.restore()
    assert live(again) == "green"
    assert again.health().live == manager.health().live
    with pytest.raises(ApiError, match="7 is lower than 8"):
        again.switch("green", 7)


def test_a_restart_without_its_weights_reports_it_and_accepts_a_new_deployment(
    make_fleet: MakeFleet, blue: Path, green: Path, tmp_path: Path
) -> None:
    manager = make_fleet()
    copy = shutil.copytree(blue, tmp_path / "copy")
    load(manager, "blue", copy)
    manager.switch("blue", 5)
    shutil.rmtree(copy)
    again = make_fleet()
    again.restore()
    health = again.health()
    assert health.live is None
    assert "copy is not a folder" in (health.problem or "")
    with pytest.raises(ApiError, match="copy is not a folder"):
        again.resolve("ratchet")
    load(again, "green", green)
    again.switch("green", 6)
    assert again.health().problem is None


def test_after_a_damaged_state_a_new_deployment_is_taken_and_an_outdated_one_is_not(
    make_fleet: MakeFleet, blue: Path, tmp_path: Path
) -> None:
    (tmp_path / "state.json").write_text('{"highest_fencing_token": 7, "live": {"checkp')
    manager = make_fleet()
    manager.restore()
    load(manager, "blue", blue)
    with pytest.raises(ApiError, match="6 is lower than 7"):
        manager.switch("blue", 6)
    manager.switch("blue", 8)
    assert live(manager) == "blue"


def test_the_stable_model_name_follows_the_setting(make_fleet: MakeFleet, blue: Path) -> None:
    manager = make_fleet(alias="assistant")
    load(manager, "blue", blue)
    manager.switch("blue", 1)
    assert manager.resolve("assistant").checkpoint_id == "blue"
    with pytest.raises(ApiError, match="Known: assistant, blue"):
        manager.resolve("ratchet")


def test_batching_follows_the_settings(tmp_path: Path, blue: Path) -> None:
    told: list[dict[str, float]] = []

    def queue(checkpoint_id: str, generator: ServedModel, **limits: Any) -> Batcher:
        told.append({name: limit for name, limit in limits.items() if name != "watchdog"})
        return Batcher(checkpoint_id, generator, **limits)

    settings = ServingSettings(max_batch=3, max_queue=5, request_timeout_s=90.0)
    manager = ModelManager(settings, StateFile(tmp_path), model_loader(Settings()), queue)
    load(manager, "blue", blue)
    manager.close()
    assert told == [{"max_batch": 3, "max_queue": 5, "limit_s": 90.0}]


class Computing:
    """A queue that does not finish its answers in time, until it is released."""

    waiting = in_flight = 0

    def __init__(self, _checkpoint_id: str, _generator: ServedModel, **_limits: Any):
        self.is_let_go = False

    def submit(self, pending: Any) -> None:
        raise NotImplementedError

    def close(self, _timeout_s: float) -> bool:
        return self.is_let_go


class Closable:
    """A model that counts how often it was closed, and fails to be while ``trouble`` is set."""

    def __init__(self, weights: str):
        self.weights, self.closed, self.trouble = weights, 0, False
        self.hardware = Conditions(engine="e", dtype="fp32", gpu_class="cpu")

    def generate(self, _chats: object, _decoding: object) -> list[Any]:
        return []

    def close(self) -> None:
        if self.trouble:
            raise TransientError("vLLM is away")
        self.closed += 1


@pytest.fixture
def leaving(tmp_path: Path) -> tuple[ModelManager, list[Any]]:
    """A manager with cp-1 loaded, whose unload does not succeed yet, and what it has loaded so far."""
    models: list[Any] = []

    def loader(_path: Path, weights: str) -> Any:
        models.append(Closable(weights))
        return models[-1]

    manager = ModelManager(ServingSettings(max_loaded=2), StateFile(tmp_path), loader, Computing)
    manager.load("cp-1", tmp_path, "w")
    for _ in range(2):
        with pytest.raises(ApiError, match="cp-1 is still computing an answer") as caught:
            manager.unload("cp-1")
        assert caught.value.status == 503
    return manager, models


def computing(manager: ModelManager) -> Any:
    return manager._loaded["cp-1"].batcher


def test_a_checkpoint_stays_loaded_until_an_unload_succeeds(
    leaving: tuple[ModelManager, list[Any]], tmp_path: Path
) -> None:
    manager, models = leaving
    assert manager.health().loaded == {"cp-1": "w"}
    manager.load("cp-2", tmp_path, "w")
    with pytest.raises(ApiError, match="cp-1, cp-2 are loaded"):
        manager.load("cp-3", tmp_path, "w")
    computing(manager).is_let_go = models[0].trouble = True
    with pytest.raises(TransientError):
        manager.unload("cp-1")
    assert manager.health().loaded == {"cp-1": "w", "cp-2": "w"}
    models[0].trouble = False
    manager.unload("cp-1")
    assert (manager.health().loaded, models[0].closed) == ({"cp-2": "w"}, 1)
    manager.unload("cp-1")


def test_an_unloading_checkpoint_can_neither_answer_nor_go_live(leaving: tuple[ModelManager, list[Any]]) -> None:
    manager, _ = leaving
    assert (manager.names(), manager.peek("cp-1")) == (["ratchet"], None)
    for ask in (manager.resolve, lambda name: manager.switch(name, 1)):
        with pytest.raises(ApiError, match="cp-1 is being unloaded") as caught:
            ask("cp-1")
        assert caught.value.status == 404


def test_an_unloading_checkpoint_can_be_loaded_again_afterwards(
    leaving: tuple[ModelManager, list[Any]], tmp_path: Path
) -> None:
    manager, models = leaving
    with pytest.raises(ApiError, match="cp-1 is still computing an answer"):
        manager.load("cp-1", tmp_path, "w")
    computing(manager).is_let_go = True
    manager.load("cp-1", tmp_path, "w")
    assert [model.closed for model in models] == [1, 0]
    assert manager.resolve("cp-1").generator is models[1]


def test_without_requests_there_is_no_latency() -> None:
    traffic = TrafficMeter().read()
    assert (traffic.requests, traffic.latency_p95_s) == (0, None)


def test_requests_errors_tokens_and_quantiles() -> None:
    meter = TrafficMeter()
    for number in range(100):
        meter.answered(latency_s=number / 100, tokens=3)
    meter.failed()
    traffic = meter.read()
    assert (traffic.requests, traffic.errors, traffic.generated_tokens) == (101, 1, 300)
    assert (traffic.latency_p50_s, traffic.latency_p95_s) == (0.5, 0.95)


def test_latencies_are_those_of_the_last_requests() -> None:
    meter = TrafficMeter()
    for _ in range(WINDOW):
        meter.answered(latency_s=9.0, tokens=1)
    for _ in range(WINDOW):
        meter.answered(latency_s=1.0, tokens=1)
    assert meter.read().latency_p95_s == 1.0
