"""Two builds of one version differ by the content of their files, and by nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from ratchet import __version__
from ratchet.build import DIGITS, Build, folder_digest, package_digest


def written(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("a = 1\n")
    (folder / "sub" / "query.lua").write_text("return 1")
    return folder


def test_a_changed_byte_or_name_changes_the_build(tmp_path: Path) -> None:
    first, second = written(tmp_path / "first"), written(tmp_path / "second")
    assert folder_digest(first) == folder_digest(second)
    (second / "sub" / "query.lua").write_text("return 2")
    assert folder_digest(first) != folder_digest(second)
    shutil.copy(first / "sub" / "query.lua", second / "sub" / "query.lua")
    (second / "__init__.py").rename(second / "other.py")
    assert folder_digest(first) != folder_digest(second)


def test_bytecode_files_do_not_change_the_build(tmp_path: Path) -> None:
    first, second = written(tmp_path / "first"), written(tmp_path / "second")
    (second / "sub" / "__pycache__").mkdir()
    (second / "sub" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"\0")
    assert folder_digest(first) == folder_digest(second)


def test_the_build_covers_the_service_and_the_shared_library() -> None:
    build = Build.of("evaluator.systems.testing")
    assert build == Build(f"{__version__}+{package_digest('ratchet')}", "evaluator", package_digest("evaluator"))
    assert len(build.digest) == DIGITS
    assert Build.parse(str(build)) == build
    assert Build.parse(str(Build.of("ratchet.worker"))) == Build.of("ratchet.worker")
    assert Build.parse("0.0.9") == Build("0.0.9")
    assert package_digest("nobody_installs_this") == ""
