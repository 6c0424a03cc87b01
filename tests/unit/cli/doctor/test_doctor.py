"""Each finding of `ratchet doctor`, caused by a real part in that condition."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ratchet import __version__
from ratchet.build import Build
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.capacity import disk_shortage
from ratchet.cli.doctor import CHECKS, Finding, examine, machine
from ratchet.cli.doctor.finding import Endpoint, connection_problem, connection_problems
from ratchet.cli.doctor.machine import shared_passwords, weak_passwords
from ratchet.cli.doctor.stores import differing
from ratchet.cli.main import app
from ratchet.inference.tiny import build_tiny_model
from ratchet.leases.gpus import acquire_gpu
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import DrillRow, WorkerRow
from ratchet.metrics.ledger_backlog import PRESENT_S
from ratchet.ports import LOOPBACK, free_port
from ratchet.run import run_lock
from ratchet.serving.protocol import Health
from ratchet.settings import Settings
from typer.testing import CliRunner

from tests.support.disk import SmallDisk, fill

STRONG = "a-Long-one-nobody-7-guesses"


def secret_file(folder: Path) -> Path:
    """A file with a strong secret."""
    file = folder / "secret"
    file.write_text(STRONG)
    return file


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake of the driver's tool, with output set by the test."""
    path = tmp_path / "bin" / "nvidia-smi"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


def says(tool: Path, script: str) -> None:
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def finding(settings: Settings, check: str) -> Finding:
    return {found.check: found for found in examine(settings)}[check]


def settled(home: Path, **sections: Any) -> Settings:
    return Settings(home=home, **{"serving": {"port": 0}, **sections})


def with_workers(home: Path, **versions: str) -> Settings:
    """A home whose ledger knows workers by host, each with its version; one on host ``gone`` is long unseen."""
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    migrate(ledger)
    with ledger.write() as tx:
        for host, version in versions.items():
            tx.session.add(
                WorkerRow(
                    name=f"testing@{host}+0",
                    system="testing",
                    host=host,
                    pid=1,
                    version=version,
                    started_at=tx.now,
                    seen_at=tx.now - (10 * PRESENT_S if host == "gone" else 0),
                    metrics_url=f"http://{LOOPBACK}:{free_port()}/metrics",
                    state="running",
                )
            )
    ledger.close()
    return settled(home)


def test_an_empty_home_can_run(tmp_path: Path) -> None:
    found = list(examine(settled(tmp_path)))
    assert len(found) == len(CHECKS)
    assert [f for f in found if f.state == "bad"] == []
    assert finding(settled(tmp_path), "ledger").text == "not there yet; the first run creates it"


def test_doctor_prints_a_line_for_each_check_and_fails_where_a_run_would(home: Path, listening: int) -> None:
    options = ["--home", str(home), "--set", f"serving.port={listening}", "doctor"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 1
    assert f"port {listening} is taken by" in result.stdout
    assert [f["state"] for f in json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)].count("bad") == 1


def test_a_card_is_shown_with_its_driver_and_leases(tmp_path: Path, tool: Path) -> None:
    says(tool, "echo 'NVIDIA GeForce RTX 3090, 24576, 20480, 550.54'")
    with acquire_gpu(3, tmp_path / "leases", {0: 24}, timeout_s=60, note="testing"):
        found = finding(settled(tmp_path), "gpu")
    assert found.state == "ok"
    assert "driver 550.54" in found.text
    assert "leased: 3 GB by testing" in found.text
    assert "leased: nothing" in finding(settled(tmp_path), "gpu").text


def test_a_card_smaller_than_its_leases_is_an_error(tmp_path: Path, tool: Path) -> None:
    says(tool, "echo 'NVIDIA GeForce RTX 3060, 12288, [N/A], 550.54'")
    found = finding(settled(tmp_path, placement={"vram_gb": {"training": 22.0}}), "gpu")
    assert (found.state, "training needs 22 GB" in found.text, "placement.vram_gb" in found.text) == (
        "bad",
        True,
        True,
    )


def test_a_lease_that_cannot_fit_beside_the_server_is_an_error(tmp_path: Path, tool: Path) -> None:
    """As the defaults of two machines do on the one card of a single machine."""
    says(tool, "echo 'NVIDIA GeForce RTX 4090, 24564, 20480, 550.54'")
    training = settled(tmp_path, placement={"vram_gb": {"training": 22.0}})
    assert finding(training, "gpu").state == "ok"
    with acquire_gpu(8, tmp_path / "leases", {0: 23}, timeout_s=60, note="serving"):
        found = finding(training, "gpu")
    assert (found.state, "22 GB, but the inference server leaves 15" in found.text) == ("bad", True)


def test_the_number_of_training_processes_is_shown(tmp_path: Path, tool: Path) -> None:
    says(tool, 'for card in a b; do echo "NVIDIA GeForce RTX 4090, 24564, 20480, 550.54, GPU-$card"; done')
    assert "rows: 2 processes (ddp) x batch_size" in finding(settled(tmp_path), "training").text
    with acquire_gpu(3, tmp_path / "leases", {0: 24}, timeout_s=60, note="testing", names={0: "GPU-b"}):
        text = finding(settled(tmp_path), "gpu").text
    assert (text.index("leased: nothing") < text.index("leased: 3 GB by testing"), text.count("leased")) == (True, 2)
    found = finding(settled(tmp_path, environment={"processes": 3}), "training")
    assert (found.state, "of 2 cards 2 have that" in found.text) == ("bad", True)


@pytest.mark.parametrize(("width", "state", "said"), [(300, "ok", "training needs about"), (60_000, "bad", "adapters")])
def test_the_memory_that_training_takes_is_compared_with_the_cards(
    tmp_path: Path, tool: Path, width: int, state: str, said: str
) -> None:
    says(tool, "echo 'NVIDIA GeForce RTX 4090, 24564, 20480, 550.54'")
    model = build_tiny_model(tmp_path / "model")
    header = json.dumps({"w": {"dtype": "F32", "shape": [width, width], "data_offsets": [0, 4]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    found = finding(settled(tmp_path, model={"path": str(model)}), "training")
    assert (found.state, said in found.text) == (state, True), found


def test_an_nvidia_driver_that_does_not_answer_is_reported(tmp_path: Path, tool: Path) -> None:
    says(tool, "echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9")
    found = finding(settled(tmp_path), "gpu")
    assert (found.state, "could not communicate" in found.text) == ("bad", True)


def test_a_closed_port_and_a_missing_host_are_told_apart(listening: int) -> None:
    assert connection_problem(Endpoint(LOOPBACK, listening)) is None
    assert "nothing listens at" in str(connection_problem(Endpoint(LOOPBACK, free_port())))
    assert "cannot be resolved here" in str(connection_problem(Endpoint("no-such-host.invalid", 1)))
    assert connection_problems([Endpoint(LOOPBACK, listening)]) == {}


def test_a_port_dropped_by_a_firewall_is_reported_as_such() -> None:
    """As a full queue of connections drops it."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as server:
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        assert "a firewall drops the packets" in str(connection_problem(Endpoint(*address), timeout_s=0.3))
        for each in waiting:
            each.close()


@pytest.mark.parametrize(
    ("check", "sections"),
    [
        ("ledger", {"ledger": {"url": "postgresql+psycopg://ratchet:{word}@127.0.0.1:{port}/ratchet"}}),
        ("redis", {"redis": {"url": "redis://worker:{word}@127.0.0.1:{port}/0"}}),
    ],
)
def test_an_unreachable_store_is_reported_with_the_reason(tmp_path: Path, check: str, sections: Any) -> None:
    port = free_port()
    filled = json.loads(json.dumps(sections).replace("{word}", STRONG).replace("{port}", str(port)))
    found = finding(settled(tmp_path, **filled), check)
    assert (found.state, f"nothing listens at 127.0.0.1:{port}" in found.text) == ("bad", True), found


def test_a_problem_behind_several_checks_is_reported_once(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://ratchet:{STRONG}@127.0.0.1:{free_port()}/ratchet"
    found = {f.check: f for f in examine(settled(tmp_path, ledger={"url": url}))}
    assert [name for name, finding in found.items() if finding.state == "bad"] == ["ledger"]
    assert found["versions"].text == "not checked, for the same reason as ledger"


def test_an_unreachable_server_is_reported_with_the_reason(tmp_path: Path) -> None:
    serving = {"url": f"http://127.0.0.1:{free_port()}", "admin_token_file": secret_file(tmp_path)}
    found = finding(Settings(home=tmp_path, serving=serving), "server")
    assert (found.state, "nothing listens at" in found.text) == ("note", True)


def test_a_server_that_does_not_answer_is_an_error_during_a_run(tmp_path: Path) -> None:
    serving = {"url": f"http://127.0.0.1:{free_port()}", "admin_token_file": secret_file(tmp_path)}
    with run_lock.hold_home(tmp_path):
        found = finding(Settings(home=tmp_path, serving=serving), "server")
    assert (found.state, "nothing listens at" in found.text) == ("bad", True)


class Stalled(BaseHTTPRequestHandler):
    """A server that has come to a standstill."""

    PROBLEM = "thread batcher-cp-1 has ended unexpectedly"

    def do_GET(self) -> None:
        body = Health(live=None, loaded={}, waiting=0, uptime_s=1.0, problem=self.PROBLEM).model_dump_json().encode()
        self.send_response(503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_stalled_server_is_reported_with_its_stalled_thread(tmp_path: Path) -> None:
    with HTTPServer((LOOPBACK, 0), Stalled) as stalled:
        threading.Thread(target=stalled.serve_forever, daemon=True).start()
        serving = {"url": f"http://{LOOPBACK}:{stalled.server_port}", "admin_token_file": secret_file(tmp_path)}
        with run_lock.hold_home(tmp_path):
            found = finding(Settings(home=tmp_path, serving=serving), "server")
        stalled.shutdown()
    assert (found.state, Stalled.PROBLEM in found.text) == ("bad", True)


class OfAnotherToken(BaseHTTPRequestHandler):
    """A server that is well, and knows another token."""

    def do_GET(self) -> None:
        is_open = self.path == "/health"
        body = Health(live=None, loaded={}, waiting=0, uptime_s=1.0).model_dump_json().encode() if is_open else b""
        self.send_response(200 if is_open else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_wrong_admin_token_is_reported_with_its_setting(tmp_path: Path) -> None:
    with HTTPServer((LOOPBACK, 0), OfAnotherToken) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        serving = {"url": f"http://{LOOPBACK}:{other.server_port}", "admin_token_file": secret_file(tmp_path)}
        found = finding(Settings(home=tmp_path, serving=serving), "server")
        other.shutdown()
    assert (found.state, "serving.admin_token_file" in found.text) == ("bad", True)


def test_clocks_are_compared_with_those_of_the_stores(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    ledger.close()
    with EmbeddedRedis(tmp_path / "redis") as redis:
        found = finding(settled(tmp_path, redis={"url": redis.url}, ledger={"url": ledger.url}), "clock")
    assert ("the ledger's" in found.text, "Redis's" in found.text) == (True, True)
    late = differing({"the ledger's": 0.1, "Redis's": -40.0})
    assert (late.state, "-40.0 s against Redis's" in late.text, "time server" in late.text) == ("note", True, True)


def test_a_ledger_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    found = finding(settled(tmp_path), "ledger")
    assert (found.state, "ratchet migrate" in found.text) == ("bad", True)


def test_hosts_of_another_version_are_named(tmp_path: Path) -> None:
    here = str(Build.of("evaluator"))
    settings = with_workers(tmp_path, one=here, two="0.0.9", three="0.0.9")
    found = finding(settings, "versions")
    assert found.state == "note"
    assert "three runs 0.0.9 (testing); two runs 0.0.9 (testing)" in found.text
    assert finding(with_workers(tmp_path / "b", one=here), "versions").state == "ok"


def test_hosts_with_another_build_of_this_version_are_named(tmp_path: Path) -> None:
    """Version numbers alone would be equal."""
    here = Build.of("evaluator")
    shared, service = f"{__version__}+00000000", f"{here.version}.evaluator.11111111"
    versions = {"one": str(here), "two": f"{shared}.evaluator.{here.digest}", "three": service}
    found = finding(with_workers(tmp_path, **versions), "versions")
    assert found.state == "note"
    assert f"{here.version} here, but three runs another evaluator, 11111111 (testing); " in found.text
    assert f"two runs {shared} (testing)" in found.text


def test_where_a_service_is_not_installed_its_workers_are_compared_with_each_other(tmp_path: Path) -> None:
    """As in a container, which holds one service."""
    here = Build.of("ratchet").version
    versions = dict.fromkeys(("one", "two"), f"{here}.elsewhere.22222222") | {"three": f"{here}.elsewhere.33333333"}
    found = finding(with_workers(tmp_path, **versions), "versions")
    assert found.text.startswith(f"{here} here, but three runs another elsewhere, 33333333 (testing): ")


def test_a_worker_that_is_missing_is_named(tmp_path: Path) -> None:
    found = finding(with_workers(tmp_path, one=__version__, gone=__version__), "workers")
    assert (found.state, "testing@gone+0 (20 min)" in found.text) == ("note", True)
    assert finding(with_workers(tmp_path / "b", one=__version__), "workers").state == "ok"


def test_a_missing_worker_of_a_local_run_is_an_error(tmp_path: Path) -> None:
    settings = with_workers(tmp_path, one=__version__, gone=__version__)
    here = settings.model_copy(update={"placement": settings.placement.model_copy(update={"machine": "gone"})})
    with run_lock.hold_home(tmp_path):
        os.utime(tmp_path / run_lock.LOCK_FILE, (0, 0))
        assert finding(here, "workers").state == "bad"
        assert finding(settings, "workers").state == "note", "it is of another machine"
        os.utime(tmp_path / run_lock.LOCK_FILE, (2e9, 2e9))
        assert finding(here, "workers").state == "note", "it was started by an earlier run"
    assert finding(here, "workers").state == "note"


def test_a_rollback_drill_that_is_due_or_was_not_caught_is_named(tmp_path: Path) -> None:
    assert finding(settled(tmp_path), "drill").state == "ok"
    settings = with_workers(tmp_path, one=__version__)
    assert "no rollback drill yet" in finding(settings, "drill").text
    ledger = Ledger(settings.ledger_url)
    old = {"requested_by": "operator", "reason": "", "outcome": "caught", "detail": "it differs"}
    with ledger.write() as tx:
        row = DrillRow(requested_at=0.0, finished_at=tx.now - 31 * 86_400, **old)
        tx.session.add(row)
    assert finding(settings, "drill") == Finding(
        "drill", "note", "31.0 d since the last one (serving.drill_days is 30): run `ratchet drill rollback`"
    )
    with ledger.write() as tx:
        tx.session.get_one(DrillRow, 1).finished_at = tx.now
    assert "was caught 0 s ago" in finding(settings, "drill").text
    with ledger.write() as tx:
        tx.session.get_one(DrillRow, 1).outcome = "not caught"
    ledger.close()
    assert "not caught: it differs" in finding(settings, "drill").text


def test_a_page_of_metrics_that_cannot_be_fetched_is_named(tmp_path: Path) -> None:
    found = finding(with_workers(tmp_path, one=__version__), "metrics")
    assert (found.state, "testing@one+0: nothing listens" in found.text) == ("note", True)


@pytest.mark.parametrize("word", ["short", "ratchet12345678", "aaaaaaaaaaaaaaaa"])
def test_a_weak_password_is_named_by_its_setting(tmp_path: Path, word: str) -> None:
    (tmp_path / "word").write_text(word)
    settings = settled(tmp_path, artifacts={"secret_key_file": tmp_path / "word"})
    assert weak_passwords(settings) == ["artifacts.secret_key_file"]
    assert "artifacts.secret_key_file" in finding(settings, "secrets").text


def test_a_reused_password_is_named(tmp_path: Path) -> None:
    (tmp_path / "word").write_text(STRONG)
    settings = Settings(
        home=tmp_path,
        artifacts={"secret_key_file": tmp_path / "word"},
        serving={"admin_token_file": secret_file(tmp_path), "port": 0},
    )
    assert shared_passwords(settings) == ["artifacts.secret_key_file", "serving.admin_token_file"]
    assert "give each its own" in finding(settings, "secrets").text


def test_a_home_that_other_users_can_read_is_noted(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    settings = settled(tmp_path / "home")
    found = finding(settings, "home")
    assert (found.state, f"chmod 700 {settings.home}" in found.text) == ("note", True)
    settings.home.chmod(0o700)
    assert finding(settings, "home").state == "ok"


def test_where_a_model_of_the_hub_is_downloaded_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    settings = settled(tmp_path / "home", model={"path": "some/model"})
    monkeypatch.setattr(machine, "mounted", lambda: [("/", "ext4")])
    found = finding(settings, "hub")
    assert (found.state, f"some/model is downloaded to {tmp_path}/hub, where" in found.text) == ("ok", True)
    monkeypatch.setattr(machine, "mounted", lambda: [("/", "ext4"), (str(tmp_path), "tmpfs")])
    found = finding(settings, "hub")
    assert (found.state, found.text.endswith("in memory (tmpfs): set HF_HOME to a folder on a disk")) == ("note", True)
    assert finding(settled(tmp_path / "home"), "hub").text == "no model of the hub is asked for"


@pytest.mark.parametrize("section", ["serving", "inference"])
def test_a_vllm_that_the_settings_start_has_to_be_there(tmp_path: Path, section: str) -> None:
    assert finding(settled(tmp_path / "home"), "vllm").text == "not used"
    told = {"engine": "vllm", "vllm_command": "no-such-vllm serve {path} {name} {port}"}
    found = finding(settled(tmp_path / "home", **{section: told}), "vllm")
    assert (found.state, f"name it in {section}.vllm_command" in found.text) == ("bad", True)
    told["vllm_command"] = f"{sys.executable} serve {{path}} {{name}} {{port}}"
    assert finding(settled(tmp_path / "home", **{section: told}), "vllm").text == f"used by {section}"


def test_the_disk_is_compared_with_what_a_save_of_the_model_takes(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    found = finding(settled(tmp_path / "home", model={"path": str(model)}), "disk")
    assert found.state == "ok"
    assert "its training state 5.96 MB" in found.text
    assert "beside 2 states" in found.text
    limited = settled(tmp_path / "home", model={"path": str(model)}, retention={"checkpoints_gb": 0.05})
    assert "; 6 checkpoints are kept in 50 MB" in finding(limited, "disk").text


def test_a_full_disk_is_reported_with_its_free_space(small_disk: SmallDisk) -> None:
    disk = small_disk(64_000_000)
    settings = settled(disk / "home")
    found = finding(settings, "disk")
    assert (found.state, found.text) == ("bad", f"{disk_shortage(settings.home)} (64 MB free)")
    fill(disk)
    assert finding(settings, "disk").text.startswith(f"the disk of {disk} is full: make room")
