"""Grafana's dashboards as code. ``make dashboards`` writes them to compose/grafana/dashboards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from scripts.dashboards.judging import judging
from scripts.dashboards.overview import overview
from scripts.dashboards.plumbing import plumbing
from scripts.dashboards.training import training

FOLDER = Path(__file__).resolve().parents[2] / "compose" / "grafana" / "dashboards"
DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview,
    "training": training,
    "judging": judging,
    "plumbing": plumbing,
}


def rendered(name: str) -> str:
    """The JSON for Grafana."""
    return JSONEncoder(sort_keys=True, indent=2).encode(DASHBOARDS[name]().build()) + "\n"
