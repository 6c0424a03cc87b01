"""Loading, switching and unloading, and what a restart finds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import TransientError
from ratchet.inference.digest import weights_digest
from ratchet.serving.batcher import Batcher
from ratchet.serving.engine import model_loader
from ratchet.serving.fleet import Fleet
from ratchet.serving.model import ServedModel
from ratchet.serving.protocol import Conditions
from ratchet.serving.refusal import Refusal
from ratchet.serving.state import StateFile
from ratchet.settings import Settings
from ratchet.settings.serving import ServingSettings

MakeFleet = Callable[..., Fleet]


def load(fleet: Fleet, checkpoint_id: str, folder: Path) -> None:
    fleet.load(checkpoint_id, folder, weights_digest(folder))


@pytest.fixture
def fleet(make_fleet: MakeFleet, blue: Path, green: Path) -> Fleet:
    """Blue is live, green is loaded."""
    fleet = make_fleet()
    load(fleet, "blue", blue)
    load(fleet, "green", green)
    fleet.switch("blue", 5)
    return fleet


def live(fleet: Fleet) -> str | None:
    return fleet.live.checkpoint_id if fleet.live else None


def test_one_of_several_is_live(fleet: Fleet) -> None:
    assert fleet.resolve("ratchet").checkpoint_id == "blue"
    assert fleet.names() == ["ratchet", "blue", "green"]
    fleet.switch("green", 6)
    assert fleet.resolve("ratchet").checkpoint_id == "green"


def test_the_same_load_and_switch_twice_change_nothing(fleet: Fleet, blue: Path) -> None:
    before = fleet.resolve("ratchet")
    load(fleet, "blue", blue)
    fleet.switch("blue", 5)
    assert fleet.resolve("ratchet") is before


def test_a_lower_fencing_token_is_refused(fleet: Fleet) -> None:
    with pytest.raises(Refusal, match="4 is lower than 5") as caught:
        fleet.switch("green", 4)
    assert caught.value.status == 409
    assert live(fleet) == "blue"


def test_a_checkpoint_that_is_not_loaded_cannot_go_live(fleet: Fleet) -> None:
    with pytest.raises(Refusal, match="no model 'red'"):
        fleet.switch("red", 9)
    fleet.switch("green", 5)


def test_an_id_keeps_its_weights(fleet: Fleet, green: Path) -> None:
    with pytest.raises(Refusal, match="is loaded with weights"):
        load(fleet, "blue", green)


def test_another_digest_is_refused(make_fleet: MakeFleet, blue: Path, green: Path) -> None:
    with pytest.raises(Refusal, match="expected") as caught:
        make_fleet().load("blue", blue, weights_digest(green))
    assert caught.value.status == 422


def test_the_live_checkpoint_stays_loaded(fleet: Fleet) -> None:
    with pytest.raises(Refusal, match="blue is live"):
        fleet.unload("blue")


def test_an_unloaded_checkpoint_is_unknown_and_may_be_unloaded_again(fleet: Fleet) -> None:
    fleet.unload("green")
    fleet.unload("green")
    with pytest.raises(Refusal, match="Known: ratchet, blue"):
        fleet.resolve("green")


def test_memory_holds_a_stated_number(make_fleet: MakeFleet, blue: Path) -> None:
    fleet = make_fleet(max_loaded=2)
    load(fleet, "one", blue)
    load(fleet, "two", blue)
    with pytest.raises(Refusal, match="unload one first"):
        load(fleet, "three", blue)
    fleet.unload("one")
    load(fleet, "three", blue)


def test_the_alias_is_no_checkpoints_name(make_fleet: MakeFleet, blue: Path) -> None:
    with pytest.raises(Refusal, match="the name that clients use"):
        load(make_fleet(), "ratchet", blue)


def test_the_same_load_from_two_sides_happens_once(make_fleet: MakeFleet, blue: Path) -> None:
    fleet = make_fleet()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load(fleet, "blue", blue), range(4)))
    assert list(fleet.health().loaded) == ["blue"]


def test_a_restart_serves_the_same_and_remembers_the_token(fleet: Fleet, make_fleet: MakeFleet, green: Path) -> None:
    fleet.switch("green", 8)
    again = make_fleet()
    again.restore()
    assert live(again) == "green"
    assert again.health().live == fleet.health().live
    with pytest.raises(Refusal, match="7 is lower than 8"):
        again.switch("green", 7)


def test_a_restart_without_its_weights_says_so_and_takes_a_new_deployment(
    make_fleet: MakeFleet, blue: Path, green: Path, tmp_path: Path
) -> None:
    fleet = make_fleet()
    copy = shutil.copytree(blue, tmp_path / "copy")
    load(fleet, "blue", copy)
    fleet.switch("blue", 5)
    shutil.rmtree(copy)
    again = make_fleet()
    again.restore()
    health = again.health()
    assert health.live is None
    assert "copy is not a folder" in (health.problem or "")
    with pytest.raises(Refusal, match="copy is not a folder"):
        again.resolve("ratchet")
    load(again, "green", green)
    again.switch("green", 6)
    assert again.health().problem is None


def test_after_a_damaged_state_a_new_deployment_is_taken_and_an_outdated_one_is_not(
    make_fleet: MakeFleet, blue: Path, tmp_path: Path
) -> None:
    (tmp_path / "state.json").write_text('{"highest_token": 7, "live": {"checkp')
    fleet = make_fleet()
    fleet.restore()
    load(fleet, "blue", blue)
    with pytest.raises(Refusal, match="6 is lower than 7"):
        fleet.switch("blue", 6)
    fleet.switch("blue", 8)
    assert live(fleet) == "blue"


def test_the_name_that_clients_ask_for_is_set(make_fleet: MakeFleet, blue: Path) -> None:
    fleet = make_fleet(alias="assistant")
    load(fleet, "blue", blue)
    fleet.switch("blue", 1)
    assert fleet.resolve("assistant").checkpoint_id == "blue"
    with pytest.raises(Refusal, match="Known: assistant, blue"):
        fleet.resolve("ratchet")


def test_how_requests_are_batched_is_set(tmp_path: Path, blue: Path) -> None:
    told: list[dict[str, float]] = []

    def queue(checkpoint_id: str, generator: ServedModel, **limits: Any) -> Batcher:
        told.append({name: limit for name, limit in limits.items() if name != "watchdog"})
        return Batcher(checkpoint_id, generator, **limits)

    settings = ServingSettings(max_batch=3, max_queue=5, request_timeout_s=90.0)
    fleet = Fleet(settings, StateFile(tmp_path), model_loader(Settings()), queue)
    load(fleet, "blue", blue)
    fleet.close()
    assert told == [{"max_batch": 3, "max_queue": 5, "limit_s": 90.0}]


class Computing:
    """A queue that is not done with its answers in time, until it is let go."""

    waiting = under_way = 0

    def __init__(self, _checkpoint_id: str, _generator: ServedModel, **_limits: Any):
        self.is_let_go = False

    def submit(self, ticket: Any) -> None:
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
def leaving(tmp_path: Path) -> tuple[Fleet, list[Any]]:
    """A fleet with cp-1 loaded, whose unload does not succeed yet, and what it has loaded so far."""
    models: list[Any] = []

    def loader(_path: Path, weights: str) -> Any:
        models.append(Closable(weights))
        return models[-1]

    fleet = Fleet(ServingSettings(max_loaded=2), StateFile(tmp_path), loader, Computing)
    fleet.load("cp-1", tmp_path, "w")
    for _ in range(2):
        with pytest.raises(Refusal, match="cp-1 still computes an answer") as caught:
            fleet.unload("cp-1")
        assert caught.value.status == 503
    return fleet, models


def computing(fleet: Fleet) -> Any:
    return fleet._loaded["cp-1"].batcher


def test_a_checkpoint_whose_unload_takes_too_long_is_loaded_until_a_further_one_succeeds(
    leaving: tuple[Fleet, list[Any]], tmp_path: Path
) -> None:
    fleet, models = leaving
    assert fleet.health().loaded == {"cp-1": "w"}
    fleet.load("cp-2", tmp_path, "w")
    with pytest.raises(Refusal, match="cp-1, cp-2 are loaded"):
        fleet.load("cp-3", tmp_path, "w")
    computing(fleet).is_let_go = models[0].trouble = True
    with pytest.raises(TransientError):
        fleet.unload("cp-1")
    assert fleet.health().loaded == {"cp-1": "w", "cp-2": "w"}
    models[0].trouble = False
    fleet.unload("cp-1")
    assert (fleet.health().loaded, models[0].closed) == ({"cp-2": "w"}, 1)
    fleet.unload("cp-1")


def test_a_checkpoint_on_its_way_out_is_not_to_be_asked_or_to_go_live(leaving: tuple[Fleet, list[Any]]) -> None:
    fleet, _ = leaving
    assert (fleet.names(), fleet.peek("cp-1")) == (["ratchet"], None)
    for ask in (fleet.resolve, lambda name: fleet.switch(name, 1)):
        with pytest.raises(Refusal, match="cp-1 is being unloaded") as caught:
            ask("cp-1")
        assert caught.value.status == 404


def test_a_checkpoint_on_its_way_out_is_loaded_again_once_it_is_out(
    leaving: tuple[Fleet, list[Any]], tmp_path: Path
) -> None:
    fleet, models = leaving
    with pytest.raises(Refusal, match="cp-1 still computes an answer"):
        fleet.load("cp-1", tmp_path, "w")
    computing(fleet).is_let_go = True
    fleet.load("cp-1", tmp_path, "w")
    assert [model.closed for model in models] == [1, 0]
    assert fleet.resolve("cp-1").generator is models[1]
