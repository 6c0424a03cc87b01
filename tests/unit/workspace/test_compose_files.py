"""The compose files: complete, hardened, and in step with the systems and with .env.example. Needs no engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from ratchet.systems import registry

from scripts.compose import rendered

COMPOSE = Path(__file__).parents[3] / "compose"
FILES = ("hub.yml", "gpu-4090.yml", "gpu-3090.yml")


class Loader(yaml.SafeLoader):
    """Knows Compose's own tags."""


def tagged(loader: Loader, _suffix: str, node: yaml.Node) -> Any:
    """The replacement of a value: a list, or nothing."""
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else None


Loader.add_multi_constructor("!", tagged)


def services(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((COMPOSE / file).read_text(), Loader=Loader)["services"]
    return found


@pytest.mark.parametrize("file", sorted(file.name for file in COMPOSE.glob("*.yml")))
def test_a_file_keeps_to_the_specification_of_compose(file: str) -> None:
    """No key that Compose does not know, and no value of another kind than it takes."""
    content = yaml.load((COMPOSE / file).read_text(), Loader=Loader)
    found = jsonschema.Draft202012Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(content)
    assert [f"{list(error.absolute_path)}: {error.message}" for error in found] == []


def test_the_workers_match_the_declared_systems() -> None:
    assert [file.name for file, text in rendered().items() if file.read_text() != text] == [], "run `make compose`"


@pytest.mark.parametrize("host", ["4090", "3090"])
def test_each_system_is_a_container_on_its_host(host: str) -> None:
    named = {name for name in services(f"gpu-{host}.yml") if name in registry.systems()}
    assert named == {system.name for system in registry.systems().values() if system.host == host}


@pytest.mark.parametrize("file", FILES)
def test_every_service_is_hardened_and_limited(file: str) -> None:
    common = services("common.yml")
    hardened = common["hardened"]
    assert hardened["read_only"]
    assert hardened["cap_drop"] == ["ALL"]
    assert hardened["security_opt"] == ["no-new-privileges:true"]
    for name, service in services(file).items():
        base = service["extends"]["service"]
        limits = [service.get("mem_limit"), common[base].get("mem_limit"), common["model-worker"]["mem_limit"]]
        assert any(limits[: 3 if base == "model-worker" else 2]) or base == "worker", name
        assert not {"privileged", "network_mode", "pid"} & set(service), name


@pytest.mark.parametrize("host", ["4090", "3090"])
def test_a_system_with_a_model_runs_where_torch_is_and_the_others_where_it_is_not(host: str) -> None:
    for name, service in services(f"gpu-{host}.yml").items():
        if name in registry.systems():
            has_torch = service["build"]["target"] == "trainer" or service["build"]["target"].endswith("-gpu")
            assert has_torch == bool(registry.get(name).preload), name
            assert (service["extends"]["service"] == "model-worker") == has_torch, name


@pytest.mark.parametrize("host", ["4090", "3090"])
def test_the_override_takes_every_reservation_of_a_card_away(host: str) -> None:
    reserving = {name for name, service in services(f"gpu-{host}.yml").items() if "deploy" in service}
    assert set(services(f"cpu-{host}.yml")) == reserving


def test_every_port_is_bound_to_an_address_of_the_environment() -> None:
    for file in FILES:
        for name, service in services(file).items():
            for port in service.get("ports", ()):
                assert re.match(r"\$\{RATCHET_(ADDRESS|MONITORING_ADDRESS|SERVING_ADDRESS)", port), (name, port)


def test_the_example_explains_exactly_the_variables_that_are_used() -> None:
    used = {name for file in COMPOSE.glob("*.yml") for name in re.findall(r"\$\{([A-Z][A-Z_0-9]+)", file.read_text())}
    example = (COMPOSE / ".env.example").read_text()
    assert set(re.findall(r"^#?([A-Z][A-Z_0-9]+)=", example, re.MULTILINE)) == used


def test_logs_are_rotated_metrics_expire_and_nothing_is_fetched_from_elsewhere() -> None:
    assert services("common.yml")["hardened"]["logging"] == {
        "driver": "local",
        "options": {"max-size": "20m", "max-file": "3"},
    }
    hub = services("hub.yml")
    kept = [option for option in hub["prometheus"]["command"] if "retention" in option]
    assert [re.search(r":-(\w+)}", option)[1] for option in kept] == ["30d", "10GB"]  # type: ignore[index]
    asks = {"GF_PLUGINS_PREINSTALL_DISABLED": "true", "GF_NEWS_NEWS_FEED_ENABLED": "false"}
    asks |= {f"GF_ANALYTICS_{name}": "false" for name in ("REPORTING_ENABLED", "CHECK_FOR_UPDATES")}
    assert asks.items() <= hub["grafana"]["environment"].items()


def test_no_password_is_a_variable() -> None:
    """Any user of the engine can read a container's variables."""
    for file in (*FILES, "common.yml"):
        for name, service in services(file).items():
            variables = service.get("environment") or {}
            secret = [key for key in variables if re.search("PASSWORD|SECRET|TOKEN", key) and "FILE" not in key]
            assert secret == [], (file, name)
            assert not re.search(r"://[^@/\s]+:[^@/\s]+@", str(variables)), (file, name)
