"""The section of a plug-in system is read and checked as Ratchet's own are, and typed where it is used."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
from pydantic import Field
from ratchet.cli.main import app
from ratchet.errors import SettingsError
from ratchet.settings import Section, Settings, load
from ratchet.settings.plugin_sections import declared_section
from ratchet.settings.section import environment, reveal
from ratchet.settings.settings import from_values, load_with_origins, schema_with
from ratchet.settings.sources import assign
from ratchet.systems import System, registry
from typer.testing import CliRunner

MODULE = '''
from pydantic import Field, SecretStr
from ratchet.settings import Section
from ratchet.systems import System, registry
from typer.testing import CliRunner

class GardenSettings(Section):
    """How the garden is watered."""
    litres: int = Field(3, ge=1, description="Litres a day.")
    beds: tuple[str, ...] = Field((), description="Beds, by name.")
    key: SecretStr | None = Field(None, description="Key of the shed.")

SYSTEM = System(
    name="garden", host="3090", purpose="waters", emits=(), sweep_s=60, lanes=(), settings=GardenSettings
)
'''


@pytest.fixture
def garden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> type[Section]:
    """A package of plug-in systems, with one that has settings and one that cannot be imported."""
    package = folder / "plugins" / "my_plugins"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "garden.py").write_text(MODULE)
    (package / "broken.py").write_text("raise ValueError('no such thing')\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("RATCHET_SYSTEMS", "installed,my_plugins")
    for name in [name for name in sys.modules if name.startswith("my_plugins")]:
        monkeypatch.delitem(sys.modules, name)
    declared = declared_section("garden")
    assert declared is not None
    return declared


def test_a_plug_in_section_is_read_from_file_environment_and_command_line(
    garden: type[Section], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ratchet.toml").write_text("[garden]\nlitres = 5\nbeds = ['a']\n")
    assert load().section(garden) == garden(litres=5, beds=("a",))
    monkeypatch.setenv("RATCHET_GARDEN__LITRES", "6")
    assert load().section(garden) == garden(litres=6, beds=("a",))
    assign('garden.beds=["b", "c"]', schema_with(["garden"]))
    found, origins = load_with_origins()
    assert found.section(garden) == garden(litres=6, beds=("b", "c"))
    assert origins == {"garden.litres": "RATCHET_GARDEN__LITRES", "garden.beds": "--set"}


def test_an_unset_plug_in_section_has_its_defaults(garden: type[Section]) -> None:
    assert load().section(garden) == garden()
    assert "garden" in load_with_origins(sections=["garden"])[0].model_dump()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[garden]\nlitre = 5\n", "garden.litre: .* did you mean garden.litres?"),
        ("[garden]\nlitres = 0\n", "garden.litres: .*greater than or equal to 1"),
        ("[gardens]\nlitres = 5\n", "gardens: there is no such setting"),
        ("[broken]\nlitres = 5\n", "broken belongs to my_plugins.broken, which fails: no such thing"),
    ],
)
def test_a_wrong_value_in_a_plug_in_section_is_named(garden: type[Section], text: str, said: str) -> None:
    Path("ratchet.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        load()


def test_a_plug_in_section_is_passed_to_child_processes_with_its_secrets(
    garden: type[Section], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(garden={"litres": 9, "key": "word"})
    assert from_values(reveal(settings)) == settings
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load() == settings


def test_a_system_cannot_take_a_section_of_ratchets_own_or_declare_something_else() -> None:
    class Own(Section):
        litres: int = Field(3)

    with pytest.raises(TypeError, match="belongs to Ratchet"):
        System(name="queue", host="3090", purpose="", emits=(), sweep_s=1, lanes=(), settings=Own)
    with pytest.raises(TypeError, match="which is not a subclass of Section"):
        System(name="x", host="3090", purpose="", emits=(), sweep_s=1, lanes=(), settings=Settings)  # type: ignore[arg-type]


def test_config_show_lists_a_plug_in_section_with_its_sources(
    garden: type[Section], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_found", cache(registry._found.__wrapped__))
    registry.systems.cache_clear()
    Path("ratchet.toml").write_text("[garden]\nlitres = 5\n")
    shown = CliRunner().invoke(app, ["--set", 'garden.beds=["a"]', "config", "show", "garden"]).stdout
    assert shown.splitlines() == [
        "* garden.litres = 5  # ratchet.toml",
        '* garden.beds = ["a"]  # --set',
        "  garden.key = null",
    ]
    registry.systems.cache_clear()
