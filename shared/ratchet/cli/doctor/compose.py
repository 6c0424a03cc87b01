"""A machine's folder of compose files, before and after `up`: its .env, its passwords, and the ports that are to open.

Runs on the machine itself or in a container of the stack with the folder mounted; no engine is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ratchet.cli.doctor.finding import Finding
from ratchet.cli.doctor.passwords import is_weak
from ratchet.cli.doctor.reach import Place, hindrances
from ratchet.lines import read_lines

ADDRESSES = ("RATCHET_ADDRESS", "RATCHET_HUB", "RATCHET_JUDGE")
NAMES = (*ADDRESSES, "RATCHET_MACHINE")
BRIDGE = "172.17."
EVERYWHERE = ("0.0.0.0", "::", "[::]")
SECRETS = (
    "ledger",
    "storage",
    "serving",
    "redis-admin",
    "redis-worker",
    "redis-flower",
    "redis-monitor",
    "flower",
    "grafana",
)
STORES = {"RATCHET_REDIS_PORT": 6379, "RATCHET_LEDGER_PORT": 5432, "RATCHET_STORAGE_PORT": 8333}
SERVING = {"RATCHET_SERVING_PORT": 8100}


def examine_folder(folder: Path) -> Iterator[Finding]:
    """What is wrong with the folder; nothing of it is changed."""
    file = folder / ".env"
    if not file.is_file():
        yield Finding("env", "bad", f"{file} is absent: cp {folder}/.env.example {file}, and set the first four in it")
        return
    values = read_env(file)
    yield _names(file, values)
    yield _pages(values)
    yield _passwords(Path(values.get("RATCHET_SECRETS") or "./secrets"), folder)
    yield _ports("hub", values.get("RATCHET_HUB"), STORES, values)
    judge = values.get("RATCHET_SERVING_ADDRESS") or values.get("RATCHET_JUDGE")
    yield _ports("3090 host", judge, SERVING, values)


def read_env(file: Path) -> dict[str, str]:
    """``NAME=VALUE`` lines as Compose reads them, without interpolation."""
    values = {}
    for line in read_lines(file):
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            values[name.removeprefix("export ").strip()] = value.partition(" #")[0].strip().strip("'\"")
    return values


def _names(file: Path, values: Mapping[str, str]) -> Finding:
    if absent := [name for name in NAMES if not values.get(name)]:
        return Finding("env", "bad", f"{file} does not set {', '.join(absent)}")
    if everywhere := [name for name in ADDRESSES if values[name] in EVERYWHERE]:
        text = (
            f"{', '.join(everywhere)} stands for every address: the ports would be open to all networks of this machine"
        )
        return Finding(
            "env", "bad", f"{text}, and no other machine knows where to go: set the one that they reach it by"
        )
    at_bridge = [name for name in ADDRESSES if values[name].startswith(BRIDGE)]
    if at_bridge and len(at_bridge) < len(ADDRESSES):
        text = f"{', '.join(at_bridge)} is still Docker's own bridge, which no other machine reaches: set its address"
        return Finding("env", "bad", text)
    if at_bridge:
        return Finding("env", "ok", f"machine {values['RATCHET_MACHINE']}, all on this one machine")
    if values["RATCHET_MACHINE"] == "one":
        text = "RATCHET_MACHINE is still the example's: give each machine a name that no other has"
        return Finding("env", "note", text)
    where = f"hub at {values['RATCHET_HUB']}, inference server at {values['RATCHET_JUDGE']}"
    return Finding("env", "ok", f"machine {values['RATCHET_MACHINE']} at {values['RATCHET_ADDRESS']}, {where}")


def _pages(values: Mapping[str, str]) -> Finding:
    """Prometheus and Alertmanager ask nobody who they are."""
    place = values.get("RATCHET_LOOK_ADDRESS") or "127.0.0.1"
    if place.startswith(("127.", "localhost", "::1", BRIDGE)):
        return Finding("pages", "ok", f"Grafana, Flower, Prometheus and Alertmanager are bound to {place}")
    text = f"RATCHET_LOOK_ADDRESS={place} shows Prometheus and Alertmanager, which ask for no login, to that network"
    return Finding(
        "pages", "note", f"{text}: leave it at 127.0.0.1 and look through `ssh -L`, or put a proxy before them"
    )


def _passwords(named: Path, folder: Path) -> Finding:
    secrets = named if named.is_absolute() else folder / named
    absent = [name for name in SECRETS if not (secrets / name).is_file()]
    if absent:
        text = f"{secrets} lacks {', '.join(absent)}: compose/make-secrets on one machine, then copy the folder"
        return Finding("passwords", "bad", text)
    words = {name: (secrets / name).read_text(encoding="utf-8").strip() for name in SECRETS}
    if weak := [name for name, word in words.items() if is_weak(word)]:
        text = f"short or guessable in {secrets}: {', '.join(weak)}: remove these files, and run compose/make-secrets"
        return Finding("passwords", "note", text)
    if len(set(words.values())) < len(words):
        return Finding(
            "passwords", "note", f"two files in {secrets} hold one password: let compose/make-secrets make them"
        )
    if secrets.stat().st_mode & 0o077:
        return Finding("passwords", "note", f"{secrets} can be entered by others: chmod 700 {secrets}")
    return Finding("passwords", "ok", f"{len(words)} in {secrets}, none of them weak")


def _ports(whose: str, host: str | None, ports: Mapping[str, int], values: Mapping[str, str]) -> Finding:
    """Whether the ports answer from here. Before that machine's `up` they must not, after it they must."""
    check = "hub" if whose == "hub" else "judge"
    if not host:
        return Finding(check, "note", f"the address of the {whose} is not set")
    places = [Place(host, int(values.get(name) or default)) for name, default in ports.items()]
    failed = hindrances(places)
    answering = ", ".join(str(place) for place in places if place not in failed)
    if not failed:
        return Finding(check, "ok", f"{answering} answer; if the {whose} is not up yet, something else has them")
    said = "; ".join(failed.values())
    return Finding(check, "note", f"{said}; before the `up` of the {whose} that is as it should be")
