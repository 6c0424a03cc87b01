"""Plug-ins of a third party are found by entry point; an unknown one is an error at start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CONTRACTS = ("unit/profiles/test_profiles.py", "unit/tasks/test_family_contract.py")


def run(*command: str | Path, plugins: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **settings, "OMP_NUM_THREADS": "1"}
    if plugins:
        environment["PYTHONPATH"] = str(TESTS / "plugins")
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=environment)


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
@pytest.mark.parametrize("contract", CONTRACTS)
def test_third_party_plug_ins_pass_our_contract_tests(contract: str) -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / contract, "-k", "polite or double")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("RATCHET_PROFILE__NAME", "politer", "no profile 'politer'. Known: emoji_think, plain, polite, regime3."),
        ("RATCHET_PROFILE", '{"name": "polite", "options": {"words": 1}}', "Its options: word."),
        ("RATCHET_SUITES", '{"families": [{"name": "triple", "levels": [1]}]}', "no task family 'triple'. Known: "),
    ],
)
@pytest.mark.parametrize("starts", ["config check", "serving", "worker"])
def test_an_unknown_plug_in_is_an_error_at_start(
    setting: str, value: str, says: str, starts: str, tmp_path: Path
) -> None:
    commands: dict[str, list[str | Path]] = {
        "config check": ["-c", "from ratchet.cli.main import app; app()", "config", "check"],
        "serving": ["-m", "ratchet.serving.server", "--home", tmp_path],
        "worker": ["-m", "ratchet.worker", "training"],
    }
    done = run(*commands[starts], **{setting: value, "RATCHET_HOME": str(tmp_path)})
    assert done.returncode != 0
    assert says in done.stderr + done.stdout
    assert sorted(tmp_path.iterdir()) == []
