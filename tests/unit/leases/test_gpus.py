"""The share of a GPU that a model process may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import SettingsError, TransientError
from ratchet.inference.gpu_limit import run
from ratchet.leases.gpus import acquire_share, capacity_gb, gpu_limit, training_processes, vram_gb
from ratchet.settings import Settings

SOON_S = 0.05


def settings(home: Path, **placement: Any) -> Settings:
    return Settings(home=home, placement=placement)


def test_without_a_gpu_nothing_is_leased(tmp_path: Path) -> None:
    assert acquire_share(settings(tmp_path, gpus_gb=()), "testing", timeout_s=SOON_S) is None


def test_one_card_holds_training_a_judge_and_the_server_side_by_side(tmp_path: Path) -> None:
    card = settings(tmp_path, gpus_gb=(24,))
    leases = [acquire_share(card, user, timeout_s=SOON_S) for user in ("training", "testing", "serving")]
    assert [lease.vram_gb for lease in leases if lease] == [12, 6, 6]
    with pytest.raises(TransientError, match="6 GB of GPU memory"):
        acquire_share(card, "mining", timeout_s=SOON_S)
    for lease in leases:
        assert lease is not None
        lease.close()


def test_gpu_leases_follow_the_settings(tmp_path: Path) -> None:
    cards = settings(tmp_path, gpus_gb=(8, 24), vram_gb={"training": 20})
    assert (capacity_gb(cards), vram_gb(cards, "training"), vram_gb(cards, "testing")) == ({0: 8, 1: 24}, 20, 6)
    lease = acquire_share(cards, "training", timeout_s=SOON_S)
    assert lease is not None
    with lease:
        assert gpu_limit(cards, lease) == {"devices": ["1"], "shares": [20 / 24]}


def test_a_lease_larger_than_its_card_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one device has 24"):
        acquire_share(settings(tmp_path, gpus_gb=(24,), vram_gb={"training": 30}), "training", timeout_s=SOON_S)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"placement": {"gpus_gb": ()}}, 1),
        ({"placement": {"gpus_gb": (24,)}}, 1),
        ({"placement": {"gpus_gb": (24, 24, 24)}}, 3),
        ({"placement": {"gpus_gb": (24, 24, 8)}}, 2),
        ({"placement": {"gpus_gb": (24, 24), "vram_gb": {"training": 22, "serving": 8}}}, 1),
        ({"placement": {"gpus_gb": (24, 24), "vram_gb": {"training": 22}, "roles": ("4090",)}}, 2),
        ({"placement": {"gpus_gb": (24, 24)}, "environment": {"device": "cpu"}}, 1),
        ({"placement": {"gpus_gb": (24, 24)}, "environment": {"device": "cuda:1"}}, 1),
        ({"placement": {"gpus_gb": (24, 24)}, "environment": {"processes": 1}}, 1),
        ({"placement": {"gpus_gb": ()}, "environment": {"processes": 3}}, 3),
    ],
)
def test_training_has_a_process_for_each_card_with_room_for_it(
    tmp_path: Path, sections: dict[str, Any], expected: int
) -> None:
    assert training_processes(Settings(home=tmp_path, **sections)) == expected


def test_of_several_leased_cards_each_has_its_own_share(tmp_path: Path) -> None:
    cards = settings(tmp_path, gpus_gb=(24, 8, 12), vram_gb={"training": 9})
    lease = acquire_share(cards, "training", timeout_s=SOON_S, cards=2)
    assert lease is not None
    with lease:
        assert gpu_limit(cards, lease) == {"devices": ["0", "2"], "shares": [9 / 24, 9 / 12]}


def test_training_on_a_cpu_leases_no_card(tmp_path: Path) -> None:
    on_cpu = Settings(home=tmp_path, placement={"gpus_gb": (24,)}, environment={"device": "cpu"})
    assert acquire_share(on_cpu, "training", timeout_s=SOON_S, cards=2) is None
    assert acquire_share(on_cpu, "testing", timeout_s=SOON_S) is not None


def test_a_leased_process_sees_only_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    said: list[dict[str, Any]] = []
    spec = {
        "target": "tests.support.gpu_child:told",
        "spec": {"word": "hello"},
        "gpu_limit": {"devices": ["1"], "shares": [0.5]},
    }
    assert run(spec, said.append) == {"word": "hello", "devices": "1"}
    assert said == [{"note": "hello"}]
