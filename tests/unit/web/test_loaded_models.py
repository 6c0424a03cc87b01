"""Leases of models that the page has loaded: each is released, however often its model had to be loaded again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from ratchet.serving.protocol import Health
from ratchet.settings import Settings
from ratchet.web import loaded_models
from ratchet.web.loaded_models import PREFIX, AskedCheckpoint, LoadedModels, ModelLease

CHECKPOINT = AskedCheckpoint("c0002-0a1b2c", 2, "artifact", "weights", "saved", "")
HEALTH = Health(live=None, loaded={PREFIX + CHECKPOINT.id: "weights"}, waiting=0, uptime_s=1.0)


def test_a_lease_that_was_prepared_twice_is_released_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployer may unload a model between its loading and the question: the answer then prepares it again."""

    async def health(_settings: Settings) -> Health:
        return HEALTH

    monkeypatch.setattr(loaded_models, "read_health", health)
    models, lease = LoadedModels(Settings(home=home, serving={"max_loaded": 3})), ModelLease(CHECKPOINT)

    async def ask() -> None:
        for _ in range(2):
            async for _ in models.prepare(lease):
                pass
        assert lease.name == PREFIX + CHECKPOINT.id
        with pytest.raises(loaded_models._NoSlot):
            models._to_unload(HEALTH)
        models.release(lease)
        assert models._to_unload(HEALTH) == [lease.name]

    asyncio.run(ask())
