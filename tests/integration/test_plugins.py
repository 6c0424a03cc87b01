"""Plug-ins of a third party are found by entry point; an unknown one is an error at start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
CONTRACTS = ("unit/profiles/test_profiles.py", "unit/tasks/test_family_contract.py")
WRONG = {
    "no such profile": (
        "RATCHET_PROFILE__NAME",
        "politer",
        "no profile 'politer'. Known: emoji_think, plain, polite, regime3.",
    ),
    "no such option": ("RATCHET_PROFILE", '{"name": "polite", "options": {"words": 1}}', "Its options: word."),
    "no such family": (
        "RATCHET_SUITES",
        '{"families": [{"name": "triple", "levels": [1]}]}',
        "no task family 'triple'. Known: ",
    ),
}
STARTS = {
    "config check": ("ratchet.cli.main:app", ["config", "check"]),
    "serving": ("ratchet.serving.server:main", ["--home", "{home}"]),
    "worker": ("ratchet.worker.__main__", ["training"]),
}


def run(
    *command: str | Path, plugins: bool = True, text: str | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **settings, "OMP_NUM_THREADS": "1"}
    if plugins:
        environment["PYTHONPATH"] = str(TESTS / "plugins")
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=environment, input=text
    )


def test_a_third_party_profile_and_family_are_found() -> None:
    program = (
        "from ratchet.profiles.profile import get_profile, known_profiles; from ratchet.tasks import registry as tasks;"
        "from ratchet.tasks.family import to_example;"
        "row = to_example(tasks.get('double').generate(2, 0), 'test');"
        "polite = get_profile('polite', {'word': 'Cheers.'});"
        "print(known_profiles(), tasks.known(), polite.transform_example(row).answer)"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    for found in ("'polite'", "'double'", "Cheers."):
        assert found in done.stdout
    assert (
        "polite"
        not in run(
            "-c", "from ratchet.profiles.profile import known_profiles; print(known_profiles())", plugins=False
        ).stdout
    )


@pytest.mark.slow
def test_third_party_plug_ins_pass_our_contract_tests() -> None:
    files = [TESTS / contract for contract in CONTRACTS]
    done = run("-m", "pytest", "-q", "-rp", "-p", "no:cacheprovider", *files, "-k", "polite or double")
    assert done.returncode == 0, done.stdout[-3000:]
    for contract in CONTRACTS:
        assert f"PASSED tests/{contract}::" in done.stdout


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """How each start has ended with each wrong setting, and its home."""
    ends = {(starts, wrong): {"home": tmp_path_factory.mktemp("home")} for starts in STARTS for wrong in WRONG}
    asked = []
    for (starts, wrong), end in ends.items():
        target, arguments = STARTS[starts]
        name, value, _ = WRONG[wrong]
        home = str(end["home"])
        settings = {name: value, "RATCHET_HOME": home}
        filled = [argument.format(home=home) for argument in arguments]
        asked.append({"target": target, "arguments": filled, "settings": settings})
    done = run(Path(__file__).with_name("forked_starts.py"), text=json.dumps(asked))
    assert done.returncode == 0, done.stderr
    for end, answer in zip(ends.values(), json.loads(done.stdout), strict=True):
        end.update(answer)
    return ends


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("starts", STARTS)
def test_an_unknown_plug_in_is_an_error_at_start(
    started: dict[tuple[str, str], dict[str, Any]], starts: str, wrong: str
) -> None:
    end = started[starts, wrong]
    assert end["code"] != 0
    assert WRONG[wrong][2] in end["output"]
    assert sorted(end["home"].iterdir()) == []
