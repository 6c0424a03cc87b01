"""A server whose first start meets a full disk or is killed, and the next start with free space."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from ratchet.serving.client import ServingClient
from ratchet.serving.server_home import announced_url
from ratchet.settings.serving import ServingSettings

from tests.support.disk import SmallDisk, fill, free
from tests.support.server_processes import Checkpoint, Server, command

Start = Callable[..., Server]


def test_a_start_on_a_full_disk_fails_with_one_sentence_and_the_next_start_works(
    start: Start, small_disk: SmallDisk, blue: Checkpoint
) -> None:
    home = small_disk(1_000_000)
    fill(home)
    refused = subprocess.run(command(home), capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"ratchet inference server: The disk of {home} is full: 0 are free")
    assert refused.stderr.count("\n") == 1
    free(home)
    server = start(home)
    with ServingClient.from_settings(ServingSettings(), home) as client:
        client.load(blue.id, str(blue.path), blue.weights)
        client.switch(blue.id, 1)
        live = client.live()
    assert live is not None
    assert live.checkpoint_id == "blue"
    assert announced_url(home) == server.url


def test_empty_or_truncated_files_after_a_kill_do_not_prevent_a_start(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "serving"
    home.mkdir()
    (home / "admin-token").touch()
    (home / "state.json").write_text('{"highest_fencing_token":7,"live":{"checkpo')
    server = start(home)
    with ServingClient.from_settings(ServingSettings(), home) as client:
        client.unload("nothing")  # takes the token
        assert client.health().highest_fencing_token == 7
    assert "state.json is damaged and was set aside as state.json.damaged" in server.log
