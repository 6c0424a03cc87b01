"""The settings of the page: what each of them changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from ratchet.cli.main import app
from ratchet.errors import SettingsError
from ratchet.ledger import Ledger
from ratchet.ports import free_port, listen
from ratchet.run.local_stack import page_port
from ratchet.settings import Settings
from typer.testing import CliRunner

from tests.support.viewer import Viewer

ALERTS = b'{"data": {"alerts": [{"state": "firing", "labels": {"alertname": "QueueLow"}, "annotations": {}}]}}'


class Prometheus(BaseHTTPRequestHandler):
    """Answers with one firing alert."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ALERTS)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Prometheus) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_page_answers_to_the_allowed_hosts(home: Path, ledger: Ledger) -> None:
    for allowed_hosts, status in ((), 421), (("hub.example.org",), 200):
        client = Viewer(home, ledger, allowed_hosts=allowed_hosts).client
        assert client.get("/", headers={"host": "hub.example.org:8000"}).status_code == status


def test_a_host_that_others_reach_needs_a_password_file(home: Path, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can be reached by others"):
        Viewer(home, ledger, host="0.0.0.0")
    (tmp_path / "secret").write_text("open sesame\n")
    client = Viewer(home, ledger, host="0.0.0.0", password_file=tmp_path / "secret").client
    assert client.get("/", follow_redirects=False).status_code == 303
    assert client.post("/login", data={"password": "open sesame", "next": "/"}).status_code == 200
    assert "The loop" in client.get("/").text


def test_an_address_is_not_announced_before_it_is_known_to_be_safe(home: Path) -> None:
    result = CliRunner().invoke(app, ["--home", str(home), "web", "--host", "0.0.0.0", "--port", "0"])
    assert result.exit_code == 2
    assert "can be reached by others" in result.output
    assert "the Control Room is at" not in result.output


def test_the_port_follows_the_setting_unless_it_is_taken(home: Path) -> None:
    port, said = free_port(), list[str]()
    assert page_port(Settings(home=home, web={"port": port}), said.append) == port
    with closing(listen("127.0.0.1", port, "web.port")) as taken:
        taken.listen()
        assert page_port(Settings(home=home, web={"port": port}), said.append) != port
    assert "web.port" in said[0]


def test_a_page_that_is_read_only_shows_no_action(home: Path, ledger: Ledger) -> None:
    assert "data-opens" in Viewer(home, ledger).get("/live")
    assert "data-opens" not in Viewer(home, ledger, read_only=True).get("/live")


def test_links_lead_to_other_pages(home: Path, ledger: Ledger) -> None:
    shown = Viewer(home, ledger, links={"Grafana": "http://hub:3000", "Bad": "javascript:alert(1)"}).get("/")
    assert '<a href="http://hub:3000" rel="noreferrer">Grafana</a>' in shown
    assert "javascript:" not in shown


def test_alerts_of_the_prometheus_url_are_shown(home: Path, ledger: Ledger, prometheus: str) -> None:
    assert "QueueLow" in Viewer(home, ledger, prometheus_url=prometheus).get("/")
    away = Viewer(home, ledger, prometheus_url=f"http://127.0.0.1:{free_port()}").get("/")
    assert "does not answer" in away
