"""Identifies the build that a process runs: builds of the same version differ in a digest of their files."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ratchet import __version__

SHARED = "ratchet"
DIGITS = 8


@dataclass(frozen=True)
class Build:
    """``version`` is the shared package's, with its digest: ``0.1.0+1a2b3c4d``; ``digest`` is that of the service."""

    version: str
    service: str = ""
    digest: str = ""

    @classmethod
    def of(cls, module: str) -> Build:
        """The build of a module's service and of the shared package."""
        package = module.partition(".")[0]
        shared = f"{__version__}+{package_digest(SHARED)}"
        return cls(shared) if package == SHARED else cls(shared, package, package_digest(package))

    @classmethod
    def parse(cls, text: str) -> Build:
        """The inverse of ``str``. Any other text becomes the version."""
        head, plus, tail = text.partition("+")
        parts = tail.split(".")
        return cls(f"{head}+{parts[0]}", *parts[1:]) if plus and len(parts) in (1, 3) else cls(text)

    def __str__(self) -> str:
        return f"{self.version}.{self.service}.{self.digest}" if self.service else self.version


@cache
def package_digest(package: str) -> str:
    """The first digits of SHA-256 over the names and contents of a package's files, without compiled Python files.

    Empty where the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        return ""
    return folder_digest(*(Path(place) for place in spec.submodule_search_locations or ()))


def folder_digest(*folders: Path) -> str:
    """``package_digest`` of the files in these folders."""
    digest = hashlib.sha256()
    for folder in folders:
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
        for name in sorted(files):
            if "__pycache__" not in name and not name.startswith("."):
                content = files[name].read_bytes()
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:DIGITS]
