from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from deployer import gate_record
from ratchet.gate.verdict_values import Verdict
from ratchet.ledger.tables import CheckpointRow
from ratchet.settings.judging import GateSettings
from ratchet.views.gate_verdict import gate_verdict

from .knowing import by_luck, easy


@pytest.mark.parametrize(("knows", "answer"), [(easy, "better"), (by_luck, "not better")])
def test_a_decision_is_a_verdict_in_the_ledger_and_in_the_home(deploying: Any, knows: Any, answer: str) -> None:
    deploying.sweep()
    challenger = deploying.add(knows)
    deploying.sweep()
    folder = deploying.home.settings.verdict_folder / challenger
    with deploying.home.ledger.read() as session:
        kept = gate_verdict(session, session.get_one(CheckpointRow, challenger), GateSettings())
    assert kept.verdict == answer
    assert Verdict.model_validate_json((folder / "verdict.json").read_text()) == kept
    assert (folder / "verdict.md").read_text().startswith(f"# {answer.capitalize()}: {challenger} against ")


def test_a_disk_without_room_for_the_verdict_leaves_the_challenge_open(
    deploying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided when there is room."""

    write, tried = gate_record.write_verdict, list[Path]()

    def full_once(verdict: Verdict, folder: Path) -> None:
        tried.append(folder)
        if len(tried) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(verdict, folder)

    monkeypatch.setattr(gate_record, "write_verdict", full_once)
    deploying.sweep()
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert len(tried) == 2
    assert deploying.challenges() == [(better, 1, "promote")]
