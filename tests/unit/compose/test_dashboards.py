"""The dashboards are what their builders say, and the files that provision them name what is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from dashboards import DASHBOARDS, FOLDER, rendered
from observed import GRAFANA


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_as_its_builder_writes_it(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == rendered(name), "run `make dashboards`"


def test_no_dashboard_is_without_a_builder() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_a_title_a_sentence_a_place_and_the_provisioned_source(name: str) -> None:
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    board = json.loads(rendered(name))
    boxes: list[dict[str, Any]] = []
    for panel in board["panels"]:
        boxes.append(panel["gridPos"])
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == source["uid"]
        assert all(target["datasource"]["uid"] == source["uid"] for target in panel["targets"])
        assert all(target["expr"] for target in panel["targets"])
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box["x"] + box["w"] <= 24 for box in boxes)


def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    apart_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    apart_y = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not (apart_x or apart_y)


def test_the_boards_differ_in_name_and_id() -> None:
    boards = [json.loads(rendered(name)) for name in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(DASHBOARDS)
