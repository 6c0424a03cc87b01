from __future__ import annotations

from pathlib import Path

from ratchet.serving.batcher import Batcher
from ratchet.serving.engine import engine_of
from ratchet.serving.vllm_engine import VllmEngine, VllmQueue
from ratchet.settings import Settings
from ratchet.watchdog import Watchdog


def test_the_engine_follows_the_setting(tmp_path: Path) -> None:
    vllm = Settings(serving={"engine": "vllm"})
    here = engine_of(Settings(serving={"engine": "embedded"}), tmp_path, Watchdog())
    elsewhere = engine_of(vllm, tmp_path, Watchdog())
    assert here.queue is Batcher
    assert elsewhere.queue is VllmQueue
    assert isinstance(elsewhere.loader, VllmEngine)
    assert not isinstance(here.loader, VllmEngine)
    elsewhere.close()
