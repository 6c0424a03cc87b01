"""Checks of this machine (Python, disk, GPUs, passwords), and of a folder of compose files before the first `up`."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from sqlalchemy.engine import make_url

from ratchet.capacity import (
    disk_shortage,
    free_disk,
    model_folder,
    save_room,
    step_of,
    training_fit,
    training_problem,
)
from ratchet.cli.doctor.finding import Endpoint, Finding, connection_problems
from ratchet.disk import NOT_LOCAL, file_system, mounted, others_may_enter, require_local, require_writable
from ratchet.errors import RatchetError
from ratchet.inference.locate_model import hub_cache
from ratchet.inference.tiny import TINY_MODEL
from ratchet.leases.gpus import Gpu, capacity_gb, list_gpus, training_processes
from ratchet.leases.slots import holder
from ratchet.lines import read_lines
from ratchet.proxies import configured
from ratchet.settings import Settings
from ratchet.settings.control import TRAINER
from ratchet.settings.serving import InferenceSettings, ServingSettings
from ratchet.settings.stores import read_secret
from ratchet.systems import registry
from ratchet.training_memory import model_facts
from ratchet.wording import size

GIB = 1024**3
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
SERVING = "serving"
"""Holds its GPU lease as long as it runs; the other users take turns."""


def python(_settings: Settings) -> Finding:
    missing = [name for name in ("torch", "transformers", "safetensors") if importlib.util.find_spec(name) is None]
    version = f"Python {platform.python_version()} at {sys.prefix}"
    if missing:
        return Finding(
            "python", "note", f"{version}; without {', '.join(missing)}: systems with models cannot run here"
        )
    return Finding("python", "ok", version)


def machine(_settings: Settings) -> Finding:
    memory = psutil.virtual_memory()
    text = f"{psutil.cpu_count()} cores, {size(memory.available)} of {size(memory.total)} memory free"
    return Finding("machine", "ok", text)


def disk(settings: Settings) -> Finding:
    """Whether the home has room and can be written to."""
    free, folder = free_disk(settings.home)
    if shortage := disk_shortage(settings.home):
        return Finding("disk", "bad", f"{shortage} ({size(free)} free)")
    require_writable(settings.home.resolve())
    text = f"{size(free)} free at {folder}"
    base = model_folder(settings) if TRAINER in settings.placement.roles else None
    if base is None:
        return Finding("disk", "ok", text)
    fits, saves = save_room(settings, model_facts(base))
    return Finding("disk", "ok" if fits else "bad", f"{text}; {saves}")


def home(settings: Settings) -> Finding:
    """Whether the home is on a local disk, and closed to other users of this machine: it holds rows and answers."""
    folder = settings.home.resolve()
    kind = file_system(folder, mounted())
    if settings.ledger.url is None:
        require_local(folder)
    if kind in NOT_LOCAL and settings.ledger.url is None:
        return Finding(
            "home",
            "note",
            f"{folder} is on a file system of type {kind}, where locks and SQLite cannot be relied on: name a home on "
            "a local disk (--home or RATCHET_HOME)",
        )
    if others_may_enter(folder):
        return Finding("home", "note", f"other users can read {folder}, with rows and answers: chmod 700 {folder}")
    return Finding("home", "ok", f"{folder} is closed to other users" if folder.exists() else f"no {folder} yet")


def hub(settings: Settings) -> Finding:
    """Where a base model of the hub is downloaded to. A folder in memory would count against a container's limit."""
    name = settings.model.path
    if TRAINER not in settings.placement.roles or name == TINY_MODEL or model_folder(settings) is not None:
        return Finding("hub", "ok", "no model of the hub is asked for")
    cache = hub_cache()
    free, _ = free_disk(cache)
    text = f"{name} is downloaded to {cache}, where {size(free)} are free"
    if (kind := file_system(cache, mounted())) in IN_MEMORY:
        return Finding("hub", "note", f"{text}, in memory ({kind}): set HF_HOME to a folder on a disk")
    return Finding("hub", "ok", text)


def vllm(settings: Settings) -> Finding:
    """Whether the program is there that the settings start vLLM with."""
    commands: dict[str, ServingSettings | InferenceSettings] = {
        "serving": settings.serving,
        "inference": settings.inference,
    }
    asked = {name: section.vllm_command for name, section in commands.items() if section.engine == "vllm"}
    for name, command in asked.items():
        program = shlex.split(command)[0]
        if shutil.which(program) is None:
            why = f"{name}.engine is vllm, and there is no program {program}: install vLLM in an environment of its own"
            return Finding("vllm", "bad", f"{why}, and name it in {name}.vllm_command")
    return Finding("vllm", "ok", f"used by {' and '.join(asked)}" if asked else "not used")


def proxies(_settings: Settings) -> Finding:
    """Which proxies the environment sets, since a wrong one cuts off teachers and model hubs."""
    found = " ".join(f"{name}={value}" for name, value in configured().items())
    if not found:
        return Finding("proxy", "ok", "none in the environment")
    return Finding(
        "proxy",
        "note",
        f"{found}: used for hosts on the internet (teachers, judges, model hubs), never for this machine or the local "
        "network; unset it if that is not meant",
    )


def systems(_settings: Settings) -> Finding:
    if broken := registry.broken():
        text = "\n".join(f"{name} cannot be imported:\n{trace}" for name, trace in broken.items())
        return Finding("systems", "bad", text.rstrip())
    names = list(registry.systems())
    return Finding("systems", "ok", f"{len(names)} installed here: {', '.join(names)}")


def cards(settings: Settings) -> Finding:
    """What the driver reports of each card, and how many gigabytes are leased to which user."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", "ok", "no NVIDIA driver: models run on the CPU")
    found = list_gpus()
    if not found:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
        why = " ".join((listing.stdout + listing.stderr).split()) or "it lists no GPU"
        return Finding("gpu", "bad", f"nvidia-smi: {why}: load the driver, or give the container access to the GPU")
    held = [leased(settings.lease_folder, gpu.uuid or str(index)) for index, gpu in enumerate(found)]
    text = "; ".join(_described(gpu, leases) for gpu, leases in zip(found, held, strict=True))
    if greedy := _never_fitting(settings, found, held):
        return Finding("gpu", "bad", f"{text}; {greedy}: lower placement.vram_gb (RATCHET_…_VRAM_GB in .env)")
    return Finding("gpu", "ok", text)


def training(settings: Settings) -> Finding:
    """How many processes would train here, and why they cannot. Only the trainer's container sees its cards."""
    if TRAINER not in settings.placement.roles:
        return Finding("training", "ok", "not on this machine")
    sizes_gb = capacity_gb(settings, list_gpus())
    if problem := training_problem(settings, sizes_gb):
        return Finding("training", "bad" if sizes_gb else "note", problem)
    processes = training_processes(settings, sizes_gb)
    try:
        folder = model_folder(settings)
        memory = f" {training_fit(settings, folder, processes)}" if folder is not None else ""
    except RatchetError as error:
        return Finding("training", "bad" if sizes_gb else "note", str(error))
    return Finding("training", "ok", step_of(settings, processes) + memory)


def _never_fitting(settings: Settings, found: list[Gpu], held: list[Counter[str]]) -> str:
    """The users whose lease can never be granted: it exceeds the largest card, or what the inference server leaves of
    it."""
    sizes_gb = settings.placement.gpus_gb or tuple(gpu.memory_bytes // GIB for gpu in found)
    left_gb = [size_gb - leases[SERVING] for size_gb, leases in zip(sizes_gb, held, strict=False)]
    problems = []
    for user, wanted_gb in settings.placement.vram_gb.items():
        if wanted_gb > (most_gb := max(sizes_gb, default=0)):
            problems.append(f"{user} needs {wanted_gb:g} GB, but the largest card has {most_gb}")
        elif user != SERVING and wanted_gb > (most_gb := max(left_gb, default=0)):
            problems.append(f"{user} needs {wanted_gb:g} GB, but the inference server leaves {most_gb}")
    return ", ".join(problems)


def leased(folder: Path, device: str) -> Counter[str]:
    """Leased gigabytes of a device (named by UUID or else by index), by the user that holds them."""
    held: Counter[str] = Counter()
    for path in sorted((folder / "gpu").glob(f"gpu-{device}-gb-*")):
        if (user := holder(path)) is not None:
            held[user or "an unknown process"] += 1
    return held


def _described(gpu: Gpu, held: Counter[str]) -> str:
    free = f"{size(gpu.free_bytes)} of " if gpu.free_bytes is not None else ""
    driver = f", driver {gpu.driver}" if gpu.driver else ""
    leases = ", ".join(f"{gb} GB by {who}" for who, gb in held.items())
    return f"{gpu.name} with {free}{size(gpu.memory_bytes)} free{driver}, leased: {leases or 'nothing'}"


LEAST_PASSWORD = 12
GUESSES = frozenset({"admin", "changeme", "password", "postgres", "ratchet", "redis", "secret"})


def is_weak(password: str, user: str | None = None) -> bool:
    """Whether it is short, the user's name, or built from a commonly guessed word."""
    bare = password.casefold().rstrip("0123456789!")
    return len(password) < LEAST_PASSWORD or password == user or bare in GUESSES or len(set(password)) < 4


def weak_passwords(settings: Settings) -> list[str]:
    """The settings with a weak password. Raises SettingsError for a password file that cannot be read."""
    weak = []
    urls = {"ledger.url": settings.ledger.address, "redis.url": settings.redis.address}
    for name, url in urls.items():
        parts = make_url(url) if url is not None else None
        if parts is not None and parts.host is not None and is_weak(str(parts.password or ""), parts.username):
            weak.append(name)
    keys = _keys(settings)
    weak.extend(name for name, secret in keys.items() if is_weak(secret))
    return weak


def shared_passwords(settings: Settings) -> list[str]:
    """The settings that share a password."""
    keys = _keys(settings)
    for name, url in {"ledger.url": settings.ledger.address, "redis.url": settings.redis.address}.items():
        if url is not None and (password := make_url(url).password):
            keys[name] = str(password)
    twice = {secret for secret, count in Counter(keys.values()).items() if count > 1}
    return sorted(name for name, secret in keys.items() if secret in twice)


def _keys(settings: Settings) -> dict[str, str]:
    keys = {}
    if settings.artifacts.secret_key_file is not None:
        keys["artifacts.secret_key_file"] = read_secret(settings.artifacts.secret_key_file)
    if settings.serving.admin_token_file is not None:
        keys["serving.admin_token_file"] = read_secret(settings.serving.admin_token_file)
    return keys


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
    "web",
    "flower",
    "grafana",
)
STORES = {"RATCHET_REDIS_PORT": 6379, "RATCHET_LEDGER_PORT": 5432, "RATCHET_STORAGE_PORT": 8333}
SERVING_PORT = {"RATCHET_SERVING_PORT": 8100}


def examine_folder(folder: Path) -> Iterator[Finding]:
    """Findings about a folder of compose files; nothing in it is changed."""
    file = folder / ".env"
    if not file.is_file():
        yield Finding(
            "env", "bad", f"{file} is missing: cp {folder}/.env.example {file}, and set its first four variables"
        )
        return
    values = read_env(file)
    yield _names(file, values)
    yield _pages(values)
    yield _passwords(Path(values.get("RATCHET_SECRETS") or "./secrets"), folder)
    yield _ports("hub", values.get("RATCHET_HUB"), STORES, values)
    judge = values.get("RATCHET_SERVING_ADDRESS") or values.get("RATCHET_JUDGE")
    yield _ports("3090 host", judge, SERVING_PORT, values)


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
            "env",
            "bad",
            f"{text}, and other machines would not know where to connect: set the address by which they reach it",
        )
    at_bridge = [name for name in ADDRESSES if values[name].startswith(BRIDGE)]
    if at_bridge and len(at_bridge) < len(ADDRESSES):
        text = f"{', '.join(at_bridge)} is still Docker's bridge, which other machines cannot reach: set its address"
        return Finding("env", "bad", text)
    if at_bridge:
        return Finding("env", "ok", f"machine {values['RATCHET_MACHINE']}, all on this one machine")
    if values["RATCHET_MACHINE"] == "one":
        text = "RATCHET_MACHINE still has the example's value: give each machine a unique name"
        return Finding("env", "note", text)
    where = f"hub at {values['RATCHET_HUB']}, inference server at {values['RATCHET_JUDGE']}"
    return Finding("env", "ok", f"machine {values['RATCHET_MACHINE']} at {values['RATCHET_ADDRESS']}, {where}")


def _pages(values: Mapping[str, str]) -> Finding:
    """Where the monitoring pages are bound. Prometheus and Alertmanager have no login."""
    address = values.get("RATCHET_MONITORING_ADDRESS") or "127.0.0.1"
    if address.startswith(("127.", "localhost", "::1", BRIDGE)):
        return Finding(
            "pages", "ok", f"the Control Room, Grafana, Flower, Prometheus and Alertmanager are bound to {address}"
        )
    text = (
        f"RATCHET_MONITORING_ADDRESS={address} shows Prometheus and Alertmanager, which have no login, to that network"
    )
    return Finding(
        "pages", "note", f"{text}: leave it at 127.0.0.1 and use `ssh -L`, or put a proxy with a login in front"
    )


def _passwords(named: Path, folder: Path) -> Finding:
    secrets = named if named.is_absolute() else folder / named
    absent = [name for name in SECRETS if not (secrets / name).is_file()]
    if absent:
        text = f"{secrets} lacks {', '.join(absent)}: run compose/make-secrets on one machine, then copy the folder"
        return Finding("passwords", "bad", text)
    words = {name: (secrets / name).read_text(encoding="utf-8").strip() for name in SECRETS}
    if weak := [name for name, word in words.items() if is_weak(word)]:
        text = f"short or guessable in {secrets}: {', '.join(weak)}: remove these files, and run compose/make-secrets"
        return Finding("passwords", "note", text)
    if len(set(words.values())) < len(words):
        return Finding(
            "passwords", "note", f"two files in {secrets} hold the same password: create them with compose/make-secrets"
        )
    if secrets.stat().st_mode & 0o077:
        return Finding("passwords", "note", f"{secrets} can be read by other users: chmod 700 {secrets}")
    return Finding("passwords", "ok", f"{len(words)} in {secrets}, none of them weak")


def _ports(whose: str, host: str | None, ports: Mapping[str, int], values: Mapping[str, str]) -> Finding:
    """Whether the ports answer from here: they should not before that machine's `up`, and should after it."""
    check = "hub" if whose == "hub" else "judge"
    if not host:
        return Finding(check, "note", f"the address of the {whose} is not set")
    endpoints = [Endpoint(host, int(values.get(name) or default)) for name, default in ports.items()]
    failed = connection_problems(endpoints)
    answering = ", ".join(str(endpoint) for endpoint in endpoints if endpoint not in failed)
    if not failed:
        return Finding(check, "ok", f"{answering} answer; if the {whose} is not up yet, another program uses them")
    problems = "; ".join(failed.values())
    return Finding(check, "note", f"{problems}; that is expected before the `up` of the {whose}")
