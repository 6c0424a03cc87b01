"""`ratchet config`: the settings in force, whether they make sense together, and their schema."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ratchet.cli.capacity import check_training
from ratchet.cli.output import print_json
from ratchet.errors import SettingsError
from ratchet.inference.four_bits import require_four_bits
from ratchet.plugins import require_plugins
from ratchet.settings import Settings, load

app = typer.Typer(
    no_args_is_help=True,
    help="Settings. --set goes before the environment (RATCHET_SECTION__FIELD), that before ratchet.toml.",
)


@app.command()
def show(
    section: Annotated[str | None, typer.Argument(help="One section, as queue.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of SECTION.FIELD = VALUE.")] = False,
) -> None:
    """Show the settings in force, those that differ from the default marked with *. Secrets are masked."""
    settings = load()
    values = settings.model_dump(mode="json")
    if section is not None and section not in values:
        raise SettingsError(f"no section {section!r}; there are: {', '.join(values)}.")
    chosen = values if section is None else {section: values[section]}
    if as_json:
        print_json(chosen)
        return
    defaults = Settings.model_construct().model_dump(mode="json")
    for name, value in chosen.items():
        _print(name, value, defaults.get(name))


@app.command()
def check() -> None:
    """Check the settings: that they are valid, that training fits this machine, and that the gate can see a gain."""
    from ratchet.cli.gate_check import check_gate  # scipy

    settings = load()
    require_plugins(settings)
    for line in check_training(settings):
        typer.echo(line)
    if settings.model.load_in_4bit and "4090" in settings.placement.roles:
        require_four_bits()
    held, power = check_gate(settings)
    if held.note:
        typer.echo(held.note, err=True)
    typer.echo(f"the settings are valid. {power.advice}")
    typer.echo(
        f"with {held.items:,} confirm items a true gain of {settings.gate.gain:.0%} is proved at the first challenge "
        f"with a chance of {power.per_challenge[0]:.0%}, within {settings.gate.challenges} challenges with "
        f"{power.within:.0%}."
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of all settings, for editors and scripts."""
    typer.echo(json.dumps(Settings.model_json_schema(), indent=2))


def _print(name: str, value: Any, default: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _print(f"{name}.{key}", inner, default.get(key) if isinstance(default, dict) else None)
        return
    mark = " " if value == default else "*"
    typer.echo(f"{mark} {name} = {json.dumps(value, ensure_ascii=False)}")
