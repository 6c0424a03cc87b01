"""Leases among processes: the total is limited, and a lease is released when its holder dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import SettingsError, Stopping, TransientError
from ratchet.leases.gpus import GpuLease, acquire_gpu
from ratchet.leases.slots import claim_name, try_take

from tests.support.disk import SmallDisk, fill

FORK = multiprocessing.get_context("fork")
SOON_S = 0.05
PATIENT_S = 60.0


class Holder:
    """A process that takes a lease and keeps it until it is killed."""

    def __init__(self, take: Callable[[], Any]) -> None:
        ours, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_hold, args=(take, theirs))
        self._process.start()
        self.lease = ours.recv()

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


def _hold(take: Callable[[], Any], told: Connection) -> None:
    lease = take()
    told.send(str(lease))
    signal.pause()


def test_a_failed_request_keeps_nothing_and_names_the_holders(tmp_path: Path) -> None:
    with acquire_gpu(1, tmp_path, {0: 3}, timeout_s=SOON_S, note="testing"):
        with pytest.raises(TransientError, match=r"No 3 GB of GPU memory.*gpu-0-gb-000 by pid \d+ testing"):
            acquire_gpu(3, tmp_path, {0: 3}, timeout_s=SOON_S)
        acquire_gpu(2, tmp_path, {0: 3}, timeout_s=SOON_S).close()


def test_waiting_ends_when_asked_to_stop(tmp_path: Path) -> None:
    with acquire_gpu(1, tmp_path, {0: 1}, timeout_s=SOON_S), pytest.raises(Stopping):
        acquire_gpu(1, tmp_path, {0: 1}, timeout_s=PATIENT_S, should_stop=lambda: True)


def test_concurrent_threads_never_exceed_the_capacity(tmp_path: Path) -> None:
    held, most, counting = 0, 0, threading.Lock()

    def work(vram_gb: int) -> None:
        nonlocal held, most
        for _ in range(10):
            with acquire_gpu(vram_gb, tmp_path, {0: 3}, timeout_s=PATIENT_S) as lease:
                with counting:
                    held += lease.vram_gb
                    most = max(most, held)
                with counting:
                    held -= lease.vram_gb

    threads = [threading.Thread(target=work, args=(vram_gb,)) for vram_gb in (1, 2, 3, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held == 0
    assert most == 3


def test_a_job_goes_to_the_fullest_gpu_with_room(tmp_path: Path) -> None:
    sizes = {0: 8, 1: 4}
    first = acquire_gpu(2.5, tmp_path, sizes, timeout_s=SOON_S)
    second = acquire_gpu(1, tmp_path, sizes, timeout_s=SOON_S)
    third = acquire_gpu(1, tmp_path, sizes, timeout_s=SOON_S)
    large = acquire_gpu(7, tmp_path, sizes, timeout_s=SOON_S)
    assert [lease.device for lease in (first, second, third, large)] == [1, 1, 0, 0]
    assert [lease.vram_gb for lease in (first, second, third, large)] == [3, 1, 1, 7]
    with pytest.raises(TransientError, match="1 GB of GPU memory"):
        acquire_gpu(1, tmp_path, sizes, timeout_s=SOON_S)
    first.close()
    assert acquire_gpu(3, tmp_path, sizes, timeout_s=SOON_S).device == 1


def test_a_job_on_several_gpus_has_all_of_them_or_none(tmp_path: Path) -> None:
    sizes = {0: 8, 1: 8, 2: 4}
    both = acquire_gpu(5, tmp_path, sizes, timeout_s=SOON_S, cards=2)
    assert (both.devices, both.device, both.vram_gb, len(both.locks)) == ((0, 1), 0, 5, 10)
    with pytest.raises(TransientError, match="4 GB of GPU memory on each of 2 devices"):
        acquire_gpu(4, tmp_path, sizes, timeout_s=SOON_S, cards=2)
    acquire_gpu(4, tmp_path, sizes, timeout_s=SOON_S).close()
    both.close()
    assert acquire_gpu(4, tmp_path, sizes, timeout_s=SOON_S, cards=3).devices == (0, 1, 2)


def test_more_gpus_than_have_the_room_are_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"each of 3 devices are needed, but 2.*environment\.processes"):
        acquire_gpu(5, tmp_path, {0: 8, 1: 8, 2: 4}, timeout_s=SOON_S, cards=3)


def test_leases_are_keyed_by_card_uuid_not_by_index(tmp_path: Path) -> None:
    def take(name: str) -> GpuLease:
        return acquire_gpu(24, tmp_path, {0: 24}, timeout_s=SOON_S, names={0: name})

    one, other = take("GPU-aaaa"), take("GPU-bbbb")
    assert (one.device, other.device) == (0, 0)
    with pytest.raises(TransientError, match="gpu-GPU-aaaa-gb-000 by pid"):
        take("GPU-aaaa")
    one.close()
    take("GPU-aaaa").close()


def test_a_lease_is_released_when_its_holder_dies(tmp_path: Path) -> None:
    holder = Holder(lambda: acquire_gpu(6, tmp_path, {0: 8}, timeout_s=PATIENT_S))
    with pytest.raises(TransientError):
        acquire_gpu(3, tmp_path, {0: 8}, timeout_s=SOON_S)
    holder.kill()
    assert acquire_gpu(8, tmp_path, {0: 8}, timeout_s=SOON_S).vram_gb == 8


def test_a_model_larger_than_every_gpu_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one device has 24"):
        acquire_gpu(30, tmp_path, {0: 24, 1: 12}, timeout_s=SOON_S)


def test_two_workers_of_a_system_never_share_a_name(tmp_path: Path) -> None:
    first = Holder(lambda: claim_name("testing", "hub", tmp_path))
    second = claim_name("testing", "hub", tmp_path)
    assert first.lease == "testing@hub+0"
    assert str(second) == "testing@hub+1"
    assert str(claim_name("mining", "hub", tmp_path)) == "mining@hub+0"
    first.kill()
    assert str(claim_name("testing", "hub", tmp_path)) == "testing@hub+0"
    second.release()
    assert claim_name("testing", "hub", tmp_path).slot == 1


def test_a_full_disk_does_not_prevent_leases_and_leaves_no_lock_behind(small_disk: SmallDisk) -> None:
    folder = small_disk(65_536)
    fill(folder)
    for _ in range(3):
        name = claim_name("testing", "box", folder)
        assert name.slot == 0
        with acquire_gpu(1, folder, {0: 1}, timeout_s=SOON_S, note="testing"):
            pass
        name.release()
    assert (folder / "names" / "testing@box+0").read_text() == ""


def test_a_lease_on_a_read_only_disk_is_an_error_that_names_it(small_disk: SmallDisk) -> None:
    with pytest.raises(TransientError, match="mounted read-only"):
        try_take(small_disk(65_536, "ro") / "names" / "testing")
