"""`docker compose config` of every file, alone and with each override."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.compose import Host

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

COMPOSE = Path(__file__).parents[2] / "compose"
EXAMPLE = (COMPOSE / ".env.example").read_text()
WHOLE = {
    "hub": ("hub.yml",),
    "4090": ("gpu-4090.yml",),
    "4090 without a card": ("gpu-4090.yml", "cpu-4090.yml"),
    "4090 with several cards": ("gpu-4090.yml", "cards-4090.yml"),
    "3090": ("gpu-3090.yml",),
    "3090 without a card": ("gpu-3090.yml", "cpu-3090.yml"),
}


def written(folder: Path, text: str) -> Path:
    file = folder / "example.env"
    file.write_text(text)
    return file


def resolved(names: tuple[str, ...], env_file: Path) -> dict[str, Any]:
    """The services as Compose would run them. Raises AssertionError with the message of Compose for a refused file."""
    host = Host(tuple(COMPOSE / name for name in names), env_file)
    found: dict[str, Any] = yaml.safe_load(host.compose("--profile", "*", "config"))
    return found


@pytest.mark.parametrize("names", WHOLE.values(), ids=WHOLE)
def test_compose_takes_the_files_with_the_example(names: tuple[str, ...], tmp_path: Path) -> None:
    services = resolved(names, written(tmp_path, EXAMPLE))["services"]
    reserving = [name for name, service in services.items() if (service.get("deploy") or {}).get("resources")]
    assert bool(reserving) == (names[-1] in ("gpu-4090.yml", "cards-4090.yml", "gpu-3090.yml"))
    assert all(service["read_only"] and service["restart"] for service in services.values())


@pytest.mark.parametrize(("line", "cards"), [("", "all"), ("RATCHET_CARDS_4090=2", 2)])
def test_several_cards_are_given_to_the_trainer(line: str, cards: str | int, tmp_path: Path) -> None:
    services = resolved(WHOLE["4090 with several cards"], written(tmp_path, f"{EXAMPLE}\n{line}\n"))["services"]
    (device,) = services["training"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["count"], "device_ids" in device) == ({"all": -1}.get(str(cards), cards), False)
    assert int(services["training"]["shm_size"]) == 8 * 1024**3


@pytest.mark.parametrize("names", WHOLE.values(), ids=WHOLE)
def test_the_example_shows_every_default(names: tuple[str, ...], tmp_path: Path) -> None:
    """Uncommenting every line of the example does not change the result of Compose."""
    every = re.sub(r"^#([A-Z][A-Z_0-9]+=)", r"\1", EXAMPLE, flags=re.MULTILINE)
    assert every.count("\nRATCHET_") > EXAMPLE.count("\nRATCHET_")
    assert resolved(names, written(tmp_path, every)) == resolved(names, written(tmp_path, EXAMPLE))


@pytest.mark.parametrize("names", WHOLE.values(), ids=WHOLE)
def test_compose_names_a_missing_required_variable(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"required variable RATCHET_\w+ is missing a value: (the|a) \w+"):
        resolved(names, written(tmp_path, ""))
