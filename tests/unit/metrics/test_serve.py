from __future__ import annotations

import pytest
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
