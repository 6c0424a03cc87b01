"""The share of a GPU that a model process may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import SettingsError, SurroundingsError
from ratchet.inference.bounded import run
from ratchet.leases.share import bound, capacity_gb, lease_share, vram_gb
from ratchet.settings import Settings

SOON_S = 0.05


def settings(home: Path, **placement: Any) -> Settings:
    return Settings(home=home, placement=placement)


def test_without_a_gpu_nothing_is_leased(tmp_path: Path) -> None:
    assert lease_share(settings(tmp_path, gpus_gb=()), "testing", timeout_s=SOON_S) is None


def test_one_card_holds_training_a_judge_and_the_server_side_by_side(tmp_path: Path) -> None:
    card = settings(tmp_path, gpus_gb=(24,))
    leases = [lease_share(card, user, timeout_s=SOON_S) for user in ("training", "testing", "serving")]
    assert [lease.vram_gb for lease in leases if lease] == [12, 6, 6]
    with pytest.raises(SurroundingsError, match="6 GB of GPU memory"):
        lease_share(card, "mining", timeout_s=SOON_S)
    for lease in leases:
        assert lease is not None
        lease.close()


def test_settings_say_how_much_and_where(tmp_path: Path) -> None:
    cards = settings(tmp_path, gpus_gb=(8, 24), vram_gb={"training": 20})
    assert (capacity_gb(cards), vram_gb(cards, "training"), vram_gb(cards, "testing")) == ({0: 8, 1: 24}, 20, 6)
    lease = lease_share(cards, "training", timeout_s=SOON_S)
    assert lease is not None
    with lease:
        assert bound(cards, lease) == {"device": 1, "share": 20 / 24}


def test_more_than_a_card_has_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one device has 24"):
        lease_share(settings(tmp_path, gpus_gb=(24,), vram_gb={"training": 30}), "training", timeout_s=SOON_S)


def test_a_bounded_process_sees_its_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    said: list[dict[str, Any]] = []
    spec = {
        "target": "ratchet.testing.gpu_child:told",
        "spec": {"word": "hello"},
        "bound": {"device": 1, "share": 0.5},
    }
    assert run(spec, said.append) == {"word": "hello", "devices": "1"}
    assert said == [{"note": "hello"}]
