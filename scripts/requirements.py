"""Print the external requirements of workspace packages: ``python scripts/requirements.py services/miner[gpu] …``.

An image installs this first, so that a change of the code leaves the layer with the packages as it is. ``-NAME`` leaves
out a package.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

SHARED = "ratchet-shared"
NAMED = re.compile(r"(?P<place>[\w./-]+)(\[(?P<extras>[\w,-]*)\])?$")


def requirements(wanted: str) -> set[str]:
    """Of ``folder[extra,…]``, whose ``pyproject.toml`` is read; the shared package is looked into as well."""
    found = NAMED.match(wanted)
    if found is None:
        raise SystemExit(f"{wanted!r} is not FOLDER or FOLDER[EXTRA,…]")
    project = tomllib.loads((Path(found["place"]) / "pyproject.toml").read_text())["project"]
    needed = list(project["dependencies"])
    for extra in filter(None, (found["extras"] or "").split(",")):
        needed += project["optional-dependencies"][extra]
    return {name for line in needed for name in (requirements(_inside(line)) if line.startswith(SHARED) else {line})}


def _inside(line: str) -> str:
    return line.replace(SHARED, "shared")


def main(arguments: list[str]) -> None:
    """Print one requirement a line."""
    left_out = {argument.removeprefix("-") for argument in arguments if argument.startswith("-")}
    needed = set[str]().union(*(requirements(wanted) for wanted in arguments if not wanted.startswith("-")))
    print("\n".join(sorted(needed - left_out)))


if __name__ == "__main__":
    main(sys.argv[1:])
