"""`ratchet config`: the settings in force, whether they make sense together, and their schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ratchet.capacity import check_training
from ratchet.cli.output import print_json, say
from ratchet.errors import ArtifactError, PreconditionFailed, SettingsError, TransientError
from ratchet.evaluation.build_suites import build_suites, updated_suites
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS, Suite
from ratchet.home import artifacts, opened
from ratchet.ledger.suites import current
from ratchet.plugins import require_bitsandbytes, require_plugins
from ratchet.settings import Settings, load
from ratchet.settings.control import TRAINER
from ratchet.settings.settings import load_with_origins, schema_with
from ratchet.stats.paired_tests import alpha_spent
from ratchet.stats.power import CHALLENGES, GatePower, gate_power
from ratchet.views.settings_in_force import default_values

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Show and check the settings. --set overrides RATCHET_SECTION__FIELD, which overrides ratchet.toml.",
)


@app.command()
def show(
    section: Annotated[str | None, typer.Argument(help="One section, such as queue.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of SECTION.FIELD = VALUE.")] = False,
) -> None:
    """Show the settings in force, and where each value that is set comes from.

    Values that differ from the default are marked with *. Settings of plug-in systems are included. Secrets are masked.
    """
    settings, origins = load_with_origins(sections=() if section in Settings.model_fields else plugin_sections())
    values = settings.model_dump(mode="json")
    if section is not None and section not in values:
        raise SettingsError(f"no section {section!r}; there are: {', '.join(values)}.")
    chosen = values if section is None else {section: values[section]}
    if as_json:
        print_json(chosen)
        return
    defaults = default_values(settings)
    for name, value in chosen.items():
        _print(name, value, defaults.get(name), origins)


def plugin_sections() -> list[str]:
    """Names of the installed systems that declare their own settings."""
    from ratchet.systems import registry

    return [system.name for system in registry.systems().values() if system.settings is not None]


@app.command()
def check() -> None:
    """Check the settings: that they are valid, that training fits this machine, and that the gate can detect a gain."""
    settings = load()
    require_plugins(settings)
    for line in check_training(settings):
        say(line)
    if settings.model.load_in_4bit and TRAINER in settings.placement.roles:
        require_bitsandbytes()
    lines = list(check_tasks(settings))
    if not settings.suites.families:
        say("the settings are valid." + ("" if lines else f" There is nothing to learn from yet: {ADD_DATA}"))
    else:
        held, power = check_gate(settings)
        if held.note:
            say(held.note, err=True)
        say(f"the settings are valid. {power.advice}")
        say(
            f"with {held.items:,} confirm items a true gain of {settings.gate.gain:.0%} is proved at the first "
            f"challenge with a chance of {power.per_challenge[0]:.0%}, within {CHALLENGES} challenges with "
            f"{power.within:.0%}."
        )
    for line in lines:
        say(line)


ADD_DATA = "`ratchet data add FILE` adds your rows, at any time."


def check_tasks(settings: Settings) -> Iterator[str]:
    """For each task of this home what gain its held-out rows can prove; nothing before the first task."""
    from ratchet.user_tasks.add import count_targets, plan_rows
    from ratchet.user_tasks.task import Task, all_tasks

    try:
        with opened(settings) as (_, ledger), ledger.read() as session:
            tasks = all_tasks(session, "user")
    except PreconditionFailed:
        return
    targets = count_targets(Task.of(row).metric for row in tasks)
    for row in tasks:
        for sentence in plan_rows(settings, Task.of(row), row.rows, targets).sentences():
            yield f"task {row.name}: {sentence}"


@app.command()
def schema() -> None:
    """Print the JSON schema of all settings, for editors and scripts."""
    print_json(schema_with(plugin_sections()).model_json_schema())


def _print(name: str, value: Any, default: Any, origins: Mapping[str, str]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _print(f"{name}.{key}", inner, default.get(key) if isinstance(default, dict) else None, origins)
        return
    mark = " " if value == default else "*"
    origin = f"  # {origins[name]}" if name in origins else ""
    say(f"{mark} {name} = {json.dumps(value, ensure_ascii=False)}{origin}")


@dataclass(frozen=True)
class ConfirmItems:
    """The confirm suite in numbers: all its items, and those of each protected family.

    ``kept``: it is the ledger's suite, which later changes of a file do not affect. ``note`` says why the ledger could
    not be read.
    """

    items: int
    protected: Mapping[str, int]
    kept: bool
    note: str = ""


def check_gate(settings: Settings) -> tuple[ConfirmItems, GatePower]:
    """The confirm items and the gate's power with them. Raises SettingsError, with the number needed, for too few
    items."""
    confirm = confirm_items(settings)
    power = gate_power(settings.gate, confirm.items, confirm.protected)
    if not power.adequate:
        raise SettingsError(low_power(settings, confirm, power))
    return confirm, power


def confirm_items(settings: Settings) -> ConfirmItems:
    """Count the items of the built-in families; those of tasks are judged by themselves."""
    note = ""
    try:
        suite = _kept_suite(settings)
    except PreconditionFailed:  # there was no run yet, or none of this version: the next run builds the suites
        suite = None
    except (TransientError, ArtifactError) as error:
        suite, note = (
            None,
            f"the suites of the ledger cannot be read ({error}), so they are counted as a new home would have them.",
        )
    kept = suite is not None
    names = {family.name for family in settings.suites.families}
    items = [item for item in (suite or build_suites(settings.suites)["confirm"]).items if item.family in names]
    by_family = Counter(item.family for item in items)
    protected = {family.name: by_family[family.name] for family in settings.suites.families if family.protected}
    return ConfirmItems(len(items), protected, kept, note)


def low_power(settings: Settings, confirm: ConfirmItems, power: GatePower) -> str:
    """An error message for a confirm suite that is too small, with a remedy."""
    gate = settings.gate
    source = "kept from the first run" if confirm.kept else "that the settings give"
    if 0.5**confirm.items > alpha_spent(gate.alpha, 1):
        problem = f"the {confirm.items} confirm items {source} are too few to prove anything"
    else:
        chance = f"{power.within:.0%} within {CHALLENGES} challenges"
        problem = (
            f"the {confirm.items} confirm items {source} prove a gain of {gate.gain:.1%} with a chance of only {chance}"
        )
    return f"the gate has too little power: {problem}. {power.advice}"


def _kept_suite(settings: Settings) -> Suite:
    """The ledger's confirm suite, as the next start will update it.

    Raises PreconditionFailed where there is none.
    """
    with opened(settings) as (_, ledger):
        store = artifacts(settings)
        with ledger.read() as session:
            rows = {pool: current(session, pool) for pool in POOLS}
        suites = {pool: load_suite(store, row) for pool, row in rows.items()}
    return updated_suites(settings.suites, suites).get("confirm", suites["confirm"])
