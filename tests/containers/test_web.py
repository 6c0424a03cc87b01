"""The Control Room as a container of the hub: behind a login, on the hub's stores, with a made-up history."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.ledger import Ledger
from ratchet.systems.registry import get
from redis import Redis

from tests.support.compose import Host, docker, query
from tests.support.synthetic_ledger import build

from .conftest import host

if TYPE_CHECKING:
    from .conftest import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

NAME = "room.example.org"
OWN_PORTS = {"REDIS": "26380", "LEDGER": "25433", "STORAGE": "28335", "WEB": "28001"}


@pytest.fixture(scope="module")
def hub(prepared: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A hub of its own, since these tests change what is live. Only what the page needs is up."""
    name = "ratchet-test-room"
    beside = {"RATCHET_PROJECT_HUB": name, "RATCHET_VOLUME": name, "RATCHET_WEB_NAME": NAME}
    ports = {f"RATCHET_{port}_PORT": number for port, number in OWN_PORTS.items()}
    found = host(prepared.secrets.parent, prepared.address, "room", "hub.yml", **beside, **ports)
    found.down()
    try:
        found.up("web")
        fill(prepared, tmp_path_factory.mktemp("cache"))
        yield found
    finally:
        found.down()


def fill(stack: Stack, cache: Path) -> None:
    """A history in the hub's ledger, with its artifacts in the hub's store."""
    place = f"{stack.address}:{OWN_PORTS['LEDGER']}"
    ledger = Ledger(f"postgresql+psycopg://ratchet:{stack.secret('ledger')}@{place}/ratchet")
    options = {
        "endpoint_url": f"http://{stack.address}:{OWN_PORTS['STORAGE']}",
        "config_kwargs": {"s3": {"addressing_style": "path"}},
        "key": "ratchet",
        "secret": stack.secret("storage"),
    }
    try:
        build(ledger, ArtifactStore("s3://ratchet/artifacts", cache, cache_bytes=10_000_000, options=options))
    finally:
        ledger.close()


@pytest.fixture
def browser(prepared: Stack, hub: Host) -> Iterator[httpx.Client]:
    """A browser that is not logged in."""
    address = f"http://{prepared.address}:{OWN_PORTS['WEB']}"
    with httpx.Client(base_url=address, timeout=60.0, trust_env=False) as client:
        yield client


def log_in(browser: httpx.Client, password: str) -> httpx.Response:
    return browser.post("/login", data={"password": password, "next": "/live"})


def test_the_container_is_healthy_with_little_memory_and_no_root(hub: Host) -> None:
    container = hub.containers()["web"]
    assert container["Health"] == "healthy"
    (limits,) = json.loads(docker("inspect", "--format", "[{{json .HostConfig}}]", container["ID"]))
    assert (limits["Memory"], limits["ReadonlyRootfs"]) == (1024**3, True)
    status = hub.compose("exec", "-T", "web", "cat", "/proc/1/status")
    assert re.search(r"^Uid:\s+10001\b", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)


def test_who_does_not_know_the_password_sees_nothing(browser: httpx.Client) -> None:
    assert browser.get("/health").json() == {"status": "ok"}
    answer = browser.get("/live")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Flive")
    assert log_in(browser, "ratchet").status_code == 401
    assert browser.get("/live").status_code == 303
    assert browser.post("/live/rollback", data={"reason": "because"}).status_code == 403


def test_it_answers_to_the_name_of_the_environment_and_to_no_other(browser: httpx.Client) -> None:
    assert browser.get("/health", headers={"host": NAME}).status_code == 200
    assert browser.get("/health", headers={"host": "evil.example"}).status_code == 421


def test_an_operator_goes_back_to_the_model_before(browser: httpx.Client, prepared: Stack, hub: Host) -> None:
    """The reason is kept, and the deployer of another machine is woken."""
    assert log_in(browser, prepared.secret("web")).headers["location"] == "/live"
    page = browser.get("/live")
    assert page.status_code == 200
    for link in ("Grafana", "Flower"):
        assert f">{link}</a>" in page.text
    token = re.search(r"x-csrf-token&#34;:&#34;([0-9a-f]{64})", page.text)
    assert token is not None
    before = query(hub, "select desired_id, previous_id from serving")[0]
    why = "it answers in rhymes"
    answer = browser.post("/live/rollback", data={"reason": why}, headers={"x-csrf-token": token[1]})
    assert answer.status_code == 204, answer.text
    assert query(hub, "select desired_id from serving") == [[before[1]]]
    newest = "select action, actor, checkpoint_id, reason from deployments order by id desc limit 1"
    assert query(hub, newest) == [["rollback", "operator", before[1], why]]
    assert why in browser.get("/live").text
    with Redis.from_url(
        f"redis://worker:{prepared.secret('redis-worker')}@{prepared.address}:{OWN_PORTS['REDIS']}/0"
    ) as redis:
        assert redis.llen(get("deployment").queue) >= 1


def test_every_page_is_there_after_a_restart_with_the_same_session(
    browser: httpx.Client, prepared: Stack, hub: Host
) -> None:
    log_in(browser, prepared.secret("web"))
    paths = re.findall(r'<li><a href="(/[^"]*)"', browser.get("/").text)
    assert len(paths) >= 10
    hub.compose("restart", "web")
    hub.up("web")
    assert {path: browser.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
