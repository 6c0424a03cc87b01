"""`ratchet config`: the settings in force, whether they make sense together, and their schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any

import typer

from ratchet.cli.capacity import check_training
from ratchet.cli.context import artifacts, opened
from ratchet.cli.output import print_json
from ratchet.errors import ArtifactError, DataError, PreconditionFailed, SettingsError, TransientError
from ratchet.evaluation.build_suites import build_suites, updated_suites
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS, Suite
from ratchet.inference.quantization import require_bitsandbytes
from ratchet.ledger.suites import current
from ratchet.plugins import require_plugins
from ratchet.settings import Settings, load
from ratchet.settings.control import TRAINER
from ratchet.settings.settings import load_with_origins, schema_with
from ratchet.stats.paired_tests import alpha_spent
from ratchet.stats.power import CHALLENGES, GatePower, gate_power

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Settings. --set goes before the environment (RATCHET_SECTION__FIELD), that before ratchet.toml.",
)


@app.command()
def show(
    section: Annotated[str | None, typer.Argument(help="One section, as queue.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of SECTION.FIELD = VALUE.")] = False,
) -> None:
    """Show the settings in force, and where each that is set comes from.

    Those that differ from the default are marked with *, those of plug-in systems are among them. Secrets are masked.
    """
    settings, origins = load_with_origins(sections=() if section in Settings.model_fields else plugin_sections())
    values = settings.model_dump(mode="json")
    if section is not None and section not in values:
        raise SettingsError(f"no section {section!r}; there are: {', '.join(values)}.")
    chosen = values if section is None else {section: values[section]}
    if as_json:
        print_json(chosen)
        return
    defaults = type(settings).model_construct().model_dump(mode="json")
    for name, value in chosen.items():
        _print(name, value, defaults.get(name), origins)


def plugin_sections() -> list[str]:
    """The installed systems that declare settings of their own."""
    from ratchet.systems import registry

    return [system.name for system in registry.systems().values() if system.settings is not None]


@app.command()
def check() -> None:
    """Check the settings: that they are valid, that training fits this machine, and that the gate can see a gain."""
    settings = load()
    require_plugins(settings)
    for line in check_training(settings):
        typer.echo(line)
    if settings.model.load_in_4bit and TRAINER in settings.placement.roles:
        require_bitsandbytes()
    held, power = check_gate(settings)
    if held.note:
        typer.echo(held.note, err=True)
    typer.echo(f"the settings are valid. {power.advice}")
    typer.echo(
        f"with {held.items:,} confirm items a true gain of {settings.gate.gain:.0%} is proved at the first challenge "
        f"with a chance of {power.per_challenge[0]:.0%}, within {CHALLENGES} challenges with "
        f"{power.within:.0%}."
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of all settings, for editors and scripts."""
    typer.echo(json.dumps(schema_with(plugin_sections()).model_json_schema(), indent=2))


def _print(name: str, value: Any, default: Any, origins: Mapping[str, str]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _print(f"{name}.{key}", inner, default.get(key) if isinstance(default, dict) else None, origins)
        return
    mark = " " if value == default else "*"
    origin = f"  # {origins[name]}" if name in origins else ""
    typer.echo(f"{mark} {name} = {json.dumps(value, ensure_ascii=False)}{origin}")


@dataclass(frozen=True)
class ConfirmItems:
    """The confirm suite in numbers: all its items, and those of each protected family.

    ``kept`` says that it is the suite of the ledger, which later changes of a file do not change; ``note`` why the
    ledger could not be asked.
    """

    items: int
    protected: Mapping[str, int]
    kept: bool
    note: str = ""


def check_gate(settings: Settings) -> tuple[ConfirmItems, GatePower]:
    """The items and what they can prove. Raises SettingsError, with the number that would do, for too few of them."""
    try:
        held = confirm_items(settings)
    except DataError as error:
        needed = gate_power(settings.gate, 0).items_needed
        raise SettingsError(f"suites.files: {error} {_would_do(settings, needed)}") from error
    power = gate_power(settings.gate, held.items, held.protected)
    if not power.adequate:
        raise SettingsError(few_items(settings, held, power))
    return held, power


def confirm_items(settings: Settings) -> ConfirmItems:
    """Count the items. Raises DataError where the rows of ``suites.files`` do not fill the pools."""
    note = ""
    try:
        suite = _kept_suite(settings)
    except PreconditionFailed:  # no run was made yet, or none of this version: the next one builds the suites
        suite = None
    except (TransientError, ArtifactError) as error:
        suite, note = None, f"the suites of the ledger cannot be read ({error}), so they are counted as built anew."
    kept = suite is not None
    items = (suite or build_suites(settings.suites)["confirm"]).items
    by_family = Counter(item.family for item in items)
    protected = {family.name: by_family[family.name] for family in settings.suites.families if family.protected}
    return ConfirmItems(len(items), protected, kept, note)


def few_items(settings: Settings, held: ConfirmItems, power: GatePower) -> str:
    """What to say of a suite that is too small, and what would do."""
    gate = settings.gate
    where = "kept from the first run" if held.kept else "that the settings give"
    if 0.5**held.items > alpha_spent(gate.alpha, 1):
        said = f"the {held.items} confirm items {where} are too few to prove anything"
    else:
        chance = f"{power.within:.0%} within {CHALLENGES} challenges"
        said = f"the {held.items} confirm items {where} prove a gain of {gate.gain:.1%} with a chance of {chance} alone"
    larger = power.advice if settings.suites.families else _would_do(settings, power.items_needed)
    anew = "Later rows change no suite of this home: begin anew with more (`ratchet reset`)." if held.kept else ""
    return f"the gate has too little power: {said}. {larger} {anew}".rstrip()


def _would_do(settings: Settings, needed: int | None) -> str:
    """How many items prove the planned gain, and the rows that a file alone has to have for them."""
    suites = settings.suites
    if needed is None:
        return "No number of items would do: lower gate.power, widen gate.margin, or state a larger gate.gain."
    said = f"To see a gain of {settings.gate.gain:.1%} about {needed:,} confirm items would do"
    if suites.families:
        return f"{said}."
    confirm = max(needed, suites.confirm_items)
    share = needed / confirm
    rows = ceil((suites.probe_items + suites.eval_items + confirm) * share / suites.held_out_share)
    larger = "" if confirm == suites.confirm_items else f" and suites.confirm_items {confirm:,}"
    return f"{said}, for which suites.files need about {rows:,} rows that can be graded{larger}."


def _kept_suite(settings: Settings) -> Suite:
    """The confirm suite of the ledger, as the next start would have it.

    Raises PreconditionFailed where there is none.
    """
    with opened(settings) as (_, ledger):
        store = artifacts(settings)
        with ledger.read() as session:
            rows = {pool: current(session, pool) for pool in POOLS}
        suites = {pool: load_suite(store, row) for pool, row in rows.items()}
    return updated_suites(settings.suites, suites).get("confirm", suites["confirm"])
