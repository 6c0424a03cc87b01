"""The dashboards equal the output of their builders, and their provisioning names existing files."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards import DASHBOARDS, FOLDER, rendered
from tests.support.observed import GRAFANA, ROOT

UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_as_its_builder_writes_it(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == rendered(name), "run `make dashboards`"


def test_no_dashboard_is_without_a_builder() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_a_title_a_description_a_position_and_the_provisioned_source(name: str) -> None:
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    board = json.loads(rendered(name))
    boxes: list[dict[str, Any]] = []
    for panel in board["panels"]:
        boxes.append(panel["gridPos"])
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"]["uid"] == source["uid"]
        assert all(target["datasource"]["uid"] == source["uid"] for target in panel["targets"])
        assert all(target["expr"] for target in panel["targets"])
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box["x"] + box["w"] <= 24 for box in boxes)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_schema_knows_every_key(name: str) -> None:
    """What it does not know is lost on the way through its models and back."""
    written = json.loads((FOLDER / f"{name}.json").read_text())
    assert through_the_schema(written) == written
    for place in (written["panels"][1]["options"], written["panels"][1]["targets"][0], written["panels"][1], written):
        place["coloring"] = "value"
        assert through_the_schema(written) != written
        del place["coloring"]


def through_the_schema(board: dict[str, Any]) -> dict[str, Any]:
    register_default_plugins()
    passed: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    return passed


def test_provisioned_dashboards_are_where_compose_mounts_them() -> None:
    hub = yaml.safe_load((ROOT / "compose" / "hub.yml").read_text())["services"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in hub["grafana"]["volumes"]}
    for folder in ("datasources", "dashboards"):  # each by itself: the image has folders of other kinds beside them
        assert mounted[f"/etc/grafana/provisioning/{folder}"] == f"./grafana/provisioning/{folder}"
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "ratchet.yml").read_text())
    (boards,) = provider["providers"]
    assert mounted[boards["options"]["path"]] == "./grafana/dashboards"
    assert (provider["apiVersion"], boards["type"]) == (1, "file")
    provided = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = provided["datasources"]
    assert (provided["apiVersion"], source["type"], source["access"]) == (1, "prometheus", "proxy")
    address = urlsplit(source["url"])
    assert f":{address.port}/" in str(hub[address.hostname]["healthcheck"]["test"])


def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    apart_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    apart_y = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not (apart_x or apart_y)


def test_the_boards_differ_in_name_and_id() -> None:
    boards = [json.loads(rendered(name)) for name in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(DASHBOARDS)
