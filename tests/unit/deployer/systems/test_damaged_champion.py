"""A champion with damaged files: its predecessor is served as a fallback until it is back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import ArtifactError
from ratchet.ledger import health, operator_actions
from ratchet.views.reading import read_view

from .knowing import easy, everything


def file_of(deploying: Any, checkpoint_id: str) -> Path:
    artifact = deploying.checkpoint(checkpoint_id).artifact
    return Path(deploying.home.artifacts._folder.path(artifact)) / "model.safetensors"


def damage(deploying: Any, checkpoint_id: str) -> Callable[[], None]:
    """Flip a byte of its weights; returns a function that repairs it."""
    file = file_of(deploying, checkpoint_id)
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0xFF]))
    return lambda: file.write_bytes(whole) and None


def lose_what_is_loaded(deploying: Any) -> None:
    """A restart of the server, which has forgotten what was live."""
    deploying.server.stop()
    deploying.server.forget()
    deploying.server.start()


def warnings(deploying: Any) -> str:
    return "\n".join(read_view(deploying.home.ledger, deploying.home.settings).warnings)


def unresolved(deploying: Any) -> list[str]:
    with deploying.home.ledger.read() as session:
        return [found.consequence for found in health.damages_since(session, 0.0)]


@pytest.fixture
def champion(deploying: Any) -> str:
    better: str = deploying.add(easy)
    deploying.sweep()
    assert deploying.server.live() == better
    return better


def test_the_predecessor_of_a_damaged_champion_serves_until_it_is_back(deploying: Any, champion: str) -> None:
    base = deploying.home.base_id()
    mend = damage(deploying, champion)
    lose_what_is_loaded(deploying)
    for _ in range(5):
        deploying.sweep()
    assert deploying.server.live() == base
    assert (deploying.desired().desired_id, deploying.desired().actual_id) == (champion, base)
    assert deploying.desired().fallback_reason.startswith(f"{base} is served in the place of the champion {champion}")
    assert "model.safetensors is damaged" in warnings(deploying)
    instead = f"{base} is served in the place of the champion {champion}"
    assert unresolved(deploying) == [f"{instead}, until the champion can be read again."]
    assert deploying.home.dead() == []
    assert deploying.blocked() == []
    mend()
    deploying.sweep()
    assert deploying.server.live() == champion
    assert (deploying.desired().actual_id, deploying.desired().fallback_reason) == (champion, None)
    assert unresolved(deploying) == []


def test_damage_found_by_the_server_has_the_same_fallback(deploying: Any, champion: str) -> None:
    """The deployer's own look is spared a file whose time and size have not changed; the server reads it all."""

    class Refusing(dict[str, Any]):
        def __getitem__(self, weights: str) -> Any:
            if weights == refused:
                raise ArtifactError("model.safetensors is damaged: its digest differs")
            return super().__getitem__(weights)

    refused = deploying.checkpoint(champion).weights
    deploying.server.models = Refusing(deploying.server.models)
    lose_what_is_loaded(deploying)
    deploying.sweep()
    assert deploying.server.live() == deploying.home.base_id()
    assert "its digest differs" in deploying.desired().fallback_reason
    refused = ""
    deploying.sweep()
    assert deploying.server.live() == champion


def test_a_damaged_rollback_target_is_replaced_by_a_fallback_until_it_is_back(deploying: Any, champion: str) -> None:
    bad = deploying.add(everything)
    mended: list[Callable[[], None]] = []

    def fails_once_live() -> bool:
        if deploying.server.live() == bad and not mended:
            deploying.server.manager.unload(champion)
            mended.append(damage(deploying, champion))
        return deploying.server.live() == bad

    deploying.model(bad).drifts = fails_once_live
    deploying.sweep()
    assert deploying.verdicts()[bad] == "rolled back"
    assert deploying.server.live() == deploying.home.base_id()
    assert len(unresolved(deploying)) == 1
    mended[0]()
    deploying.sweep()
    assert deploying.server.live() == champion
    assert unresolved(deploying) == []


def test_a_damaged_champion_that_is_loaded_keeps_serving(deploying: Any, champion: str) -> None:
    damage(deploying, champion)
    deploying.sweep()
    assert deploying.server.live() == champion
    assert deploying.desired().fallback_reason is None


def test_a_damaged_predecessor_is_passed_over(deploying: Any, champion: str) -> None:
    newest = deploying.add(everything)
    deploying.sweep()
    assert deploying.server.live() == newest
    damage(deploying, newest)
    damage(deploying, champion)
    lose_what_is_loaded(deploying)
    deploying.sweep()
    assert deploying.server.live() == deploying.home.base_id()


def test_without_an_intact_champion_reconciling_continues_and_a_manual_rollback_works(
    deploying: Any, champion: str
) -> None:
    base = deploying.home.base_id()
    damage(deploying, champion)
    mend = damage(deploying, base)
    lose_what_is_loaded(deploying)
    for _ in range(5):
        deploying.sweep()
    assert deploying.server.live() is None
    assert deploying.desired().fallback_reason.startswith("nothing is served")
    assert deploying.home.dead() == []
    mend()
    with deploying.home.ledger.write() as tx:
        operator_actions.rollback(tx, "its disk is bad")
    deploying.sweep()
    assert deploying.server.live() == base
    assert deploying.desired().fallback_reason is None


def test_a_better_one_is_deployed_over_a_damaged_champion(deploying: Any, champion: str) -> None:
    damage(deploying, champion)
    lose_what_is_loaded(deploying)
    deploying.sweep()
    newest = deploying.add(everything)
    deploying.sweep()
    assert deploying.server.live() == newest
    assert deploying.desired().fallback_reason is None
    assert unresolved(deploying) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "{file}"), ("another\n", "serving.admin_token_file")],
    ids=["empty", "wrong"],
)
def test_a_rejected_admin_token_counts_against_no_checkpoint(
    deploying: Any, tmp_path: Path, text: str, said: str
) -> None:
    better = deploying.add(easy)
    file = tmp_path / "other-token"
    file.write_text(text)
    right = deploying.home.settings
    wrong = right.serving.model_copy(update={"admin_token_file": file})
    deploying.home.settings = right.model_copy(update={"serving": wrong})
    bus = deploying.bus()
    controller = bus.controllers["deployment"]
    troubles = []

    class Stopping:
        """Ends the wait, which has no other end, once it has lasted."""

        def waiting(self, _lane: str) -> None:
            troubles.extend(trouble.why for trouble in controller.wait_reasons.values())
            if len(troubles) > 5:
                controller.stop.set()

        def __getattr__(self, _name: str) -> Any:
            return lambda *_: None

    controller.observers.append(Stopping())
    bus.sweep()
    assert deploying.home.dead() == []
    assert said.format(file=file) in troubles[0]
    deploying.home.settings = right
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
