"""Grafana's dashboards as code. ``make dashboards`` writes them to compose/grafana/dashboards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.judging import judging
from dashboards.overview import overview
from dashboards.plumbing import plumbing
from dashboards.training import training

FOLDER = Path(__file__).resolve().parents[2] / "compose" / "grafana" / "dashboards"
DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview,
    "training": training,
    "judging": judging,
    "plumbing": plumbing,
}


def rendered(name: str) -> str:
    """The JSON that Grafana is given."""
    return JSONEncoder(sort_keys=True, indent=2).encode(DASHBOARDS[name]().build()) + "\n"
