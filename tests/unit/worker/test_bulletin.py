from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from ratchet.bus.bulletin import newest
from ratchet.bus.connection import connect
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.evaluation.preview import append_previews
from ratchet.settings import Settings
from ratchet.watchdog import Watchdog
from ratchet.worker.bulletin import BulletinBoard, read_bulletin

from tests.support.previews import preview


def told(settings: Settings, step: int) -> None:
    settings.status_folder.mkdir(parents=True, exist_ok=True)
    file = settings.status_folder / "training_status.json"
    file.write_text(json.dumps({"state": "training", "step": step}))
    os.utime(file, (step, step))


def test_the_board_shows_what_has_changed_and_rests_otherwise(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as redis, connect(redis.url) as client:
        here = Settings(home=tmp_path / "here", redis={"url": redis.url})
        board = BulletinBoard(client, here, threading.Event(), Watchdog())
        assert not board.look()
        told(here, 100)
        assert (board.look(), board.look()) == (True, False)
        append_previews(here.status_folder / "previews.jsonl", [preview(step=100)])
        assert board.look()
        told(here, 200)
        assert board.look()
        elsewhere = Settings(home=tmp_path / "elsewhere", redis={"url": redis.url})
        assert newest(elsewhere) == read_bulletin(here)
        assert read_bulletin(here).status["step"] == 200


def test_where_nothing_was_written_there_is_nothing_to_show(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.status_folder.mkdir(parents=True)
    (settings.status_folder / "training_status.json").write_text("[half")
    assert read_bulletin(settings).status == {}
