"""What the gate can prove with the confirm items that are really there: those of the ledger once a run was made, else
those that families and files would give. It plans with counts and reads no record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from ratchet.cli.place import artifacts, opened
from ratchet.errors import ArtifactError, DataError, PreconditionFailed, SettingsError, TransientError
from ratchet.evaluation.build_suites import build_suites, updated_suites
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS, Suite
from ratchet.ledger.suites import current
from ratchet.settings import Settings
from ratchet.stats.paired_tests import alpha_spent
from ratchet.stats.power import GatePower, gate_power


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
        chance = f"{power.within:.0%} within {gate.challenges} challenges"
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
