"""Waiting for answers: what a time limit and a disconnect that come together count as."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Prompt
from ratchet.serving.answering import Answering
from ratchet.serving.http_errors import ClientDisconnected, TimedOut
from ratchet.serving.metrics import Metrics
from ratchet.serving.model_manager import LoadedCheckpoint, ModelManager, TrafficMeter
from ratchet.serving.pending import PendingRequest
from ratchet.settings.serving import ServingSettings


class Loaded:
    """As much of a loaded checkpoint as counts requests."""

    def __init__(self) -> None:
        self.traffic = TrafficMeter()


async def wait(loaded: Loaded, *, disconnects: bool) -> None:
    """Wait for a request whose time limit has passed; its client's disconnect is noticed a little later."""
    pending = PendingRequest(Prompt((1,), 1, Decoding()), timeout_s=0.0)
    pending.expire()
    if disconnects:
        asyncio.get_running_loop().call_later(0.01, pending.cancel)
    answering = Answering(cast(ModelManager, None), cast(Metrics, None), ServingSettings())
    await answering.wait(cast(LoadedCheckpoint, loaded), [pending])


def test_a_request_past_its_time_limit_counts_as_a_failure() -> None:
    loaded = Loaded()
    with pytest.raises(TimedOut):
        asyncio.run(wait(loaded, disconnects=False))
    assert loaded.traffic.read().errors == 1


def test_a_client_that_has_gone_counts_as_no_failure_though_the_time_limit_came_first() -> None:
    """As after the process stood still past the limit, when the limit is noticed before the connection is looked at."""
    loaded = Loaded()
    with pytest.raises(ClientDisconnected):
        asyncio.run(wait(loaded, disconnects=True))
    assert loaded.traffic.read().errors == 0
