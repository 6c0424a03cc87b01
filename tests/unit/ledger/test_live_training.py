from __future__ import annotations

import json
from pathlib import Path

from ratchet.evaluation.preview import append_previews
from ratchet.ledger import Ledger
from ratchet.ledger.live_training import PREVIEWS, live_training, status_for_claim
from ratchet.settings import Settings
from ratchet.systems import Subject, claims

from tests.support.previews import preview


def test_another_machine_reads_from_the_claim_what_training_wrote(ledger: Ledger, tmp_path: Path) -> None:
    here, elsewhere = Settings(home=tmp_path / "here"), Settings(home=tmp_path / "elsewhere")
    here.status_folder.mkdir(parents=True)
    (here.status_folder / "training_status.json").write_text(json.dumps({"state": "training", "step": 200, "pace": 1}))
    append_previews(here.status_folder / "previews.jsonl", [preview(step=step) for step in range(PREVIEWS + 5)])
    with ledger.write() as tx:
        claim = claims.take(tx, "training", Subject("batch", "b"), "training@here+0", 60.0)
        assert claim is not None
        claims.renew(tx, claim, 60.0, 1, "", status_for_claim(here))
    with ledger.read() as session:
        live = live_training(session, elsewhere)
    assert (live.is_claimed, live.status["step"], live.status["loss"]) == (True, 200, None)
    assert [each.step for each in live.previews] == list(range(5, PREVIEWS + 5))


def test_without_a_claim_or_files_there_is_nothing_to_show(ledger: Ledger, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.status_folder.mkdir(parents=True)
    (settings.status_folder / "training_status.json").write_text("[half")
    assert status_for_claim(settings) == {"previews": []}
    with ledger.read() as session:
        live = live_training(session, settings)
    assert (live.is_claimed, live.previews) == (False, ())
