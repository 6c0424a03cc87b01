from __future__ import annotations

import pytest
from ratchet.bus.ports import free_port
from ratchet.metrics.serve import MetricsPage
from ratchet.settings import Settings


@pytest.mark.parametrize(
    ("metrics", "url"),
    [
        ({"host": "127.0.0.1"}, "http://127.0.0.1:{port}/metrics"),
        ({"host": "0.0.0.0"}, "http://box:{port}/metrics"),
        ({"host": "0.0.0.0", "address": "10.0.0.7"}, "http://10.0.0.7:{port}/metrics"),
        ({"host": "0.0.0.0", "address": "10.0.0.7:9207"}, "http://10.0.0.7:9207/metrics"),
    ],
)
def test_prometheus_is_told_an_address_that_it_can_reach(settings: Settings, metrics: dict[str, str], url: str) -> None:
    home = settings.home
    page = MetricsPage(Settings(home=home, placement={"machine": "box"}, metrics={"port": 0, **metrics}))
    assert page.url == url.format(port=page.port)
    page.close()


def test_the_first_port_to_try_is_set(settings: Settings) -> None:
    port = free_port()
    page = MetricsPage(Settings(home=settings.home, metrics={"port": port}))
    page.close()
    assert port <= page.port < port + 20
