"""`ratchet export`, of a real small model with and without adapters."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from ratchet.gate.verdict_values import Verdict
from ratchet.inference.model_folder import weights_digest
from ratchet.inference.model_loading import load_merged
from ratchet.inference.tiny import build_tiny_model
from ratchet.ledger import deployments
from ratchet.ledger.lineage import checkpoint_id
from ratchet.ledger.suites import current
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, TaskRow
from ratchet.run.base_model import prepare_base_model
from ratchet.views.checkpoint_names import checkpoint_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.adapters import build_adapter
from tests.support.home import Home, small_home
from tests.unit.cli.running import ratchet

VERDICT = Verdict(
    verdict="better", exit_code=0, candidate="c0001", base="c0000", reasons=("Proved better.",), alpha=0.03, gain=0.02,
    targets=(), families=(), tasks=(), levels=(),
)  # fmt: skip
IDS = torch.arange(3, 40)[None]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose champion is a checkpoint of adapters, proved better on a task."""
    folder = tmp_path_factory.mktemp("export")
    model = build_tiny_model(folder / "model")
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")

    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model({**spec, "model": str(model)}, lambda _message: None)

    with small_home(folder / "run", prepare, model={"path": str(model)}) as home:
        with home.ledger.write() as tx:
            base = tx.session.get_one(CheckpointRow, home.base_id())
            adapters = build_adapter(folder / "adapters", home.artifacts.fetch(base.artifact), name=str(model))
            weights = weights_digest(adapters)
            published = home.artifacts.publish(adapters, "checkpoint", {}, requires=[base.artifact])
            row = CheckpointRow(
                id=checkpoint_id(1, weights),
                ordinal=1,
                parent_id=base.id,
                step=8,
                tokens=999,
                weights=weights,
                artifact=published.id,
                size_bytes=published.size_bytes,
                created_at=tx.now,
            )
            gone = {"id": "c0002-abcdef", "ordinal": 2, "weights": "0" * 64, "artifact": "0" * 64, "state": "deleted"}
            same = {"parent_id": base.id, "step": 9, "tokens": 1, "size_bytes": 1, "created_at": tx.now}
            tx.session.add_all([row, CheckpointRow(**gone, **same, reason="retention")])
            tx.session.flush()
            target = {
                "task": None,
                "metric": "accuracy",
                "n": 46,
                "gains": 19,
                "losses": 0,
                "effect": 0.413,
                "p": 1.9e-6,
            }
            numbers = {"decision": "promote", "evidence": {"targets": [target]}}
            deployments.promote(tx, row.id, base.id, "19 gained, 0 lost", numbers, 1)
            told, suite = {**numbers, "verdict": VERDICT.model_dump(mode="json")}, current(tx.session, "confirm")
            tx.session.add(
                ChallengeRow(
                    champion_id=base.id, challenger_id=row.id, k=1, suite_id=suite.id, outcome="promote",
                    numbers=told, created_at=tx.now,
                )
            )  # fmt: skip
            tx.session.add(
                TaskRow(
                    name="bAbI", kind="user", metric="accuracy", source="hf:facebook/babi_qa", held_out={}, rows=400,
                    held_rows=46, created_at=tx.now, updated_at=tx.now,
                )
            )  # fmt: skip
        yield home


@pytest.fixture
def home(made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(made.settings.home))
    monkeypatch.setenv("RATCHET_MODEL__PATH", made.settings.model.path)
    yield made
    os.environ.clear()
    os.environ.update(before)


def judged(home: Home, ordinal: int) -> torch.Tensor:
    with home.ledger.read() as session:
        row = session.query(CheckpointRow).filter_by(ordinal=ordinal).one()
    return logits(load_merged(home.artifacts.fetch(row.artifact)))


def test_the_champion_is_a_whole_model_with_a_card(home: Home, tmp_path: Path) -> None:
    said = ratchet("export", "--to", "out", "--ollama").stdout
    assert said.startswith("#1 (c0001-")
    folder = tmp_path / "out"
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder)), judged(home, 1))
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    names = {file.name for file in folder.iterdir()}
    assert {"model.safetensors", "generation_config.json", "README.md", "Modelfile"} <= names
    assert not {"base.json", "adapter_config.json", "manifest.json"} & names
    card = (folder / "README.md").read_text()
    with home.ledger.read() as session:
        assert session.query(CheckpointRow).filter_by(ordinal=1).one().weights in card
    for fact in (
        "license: apache-2.0",
        "datasets:\n- facebook/babi_qa",
        "| graded items | accuracy | 46 | – | – | 0.413 | 19 gained, 0 lost | 1.9e-06 |",
        "| bAbI | accuracy | 400 | 46 | hf:facebook/babi_qa | not stated to Ratchet |",
        "Trained from **model** with Ratchet",
    ):
        assert fact in card
    assert home.settings.model.path not in card, "folders of this machine are nobody's business"
    assert "base_model:" not in card, "a folder is no name on the hub"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert Verdict.model_validate_json((folder / "verdict.json").read_text()) == VERDICT
    assert (folder / "verdict.md").read_text().startswith("# Better: c0001 against c0000")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_adapters_alone_are_read_by_peft(home: Home, tmp_path: Path) -> None:
    said = ratchet("export", "1", "--to", "out", "--adapter").stdout
    assert f"Their base is {home.settings.model.path}." in said
    folder = tmp_path / "out"
    assert "model.safetensors" not in {file.name for file in folder.iterdir()}
    base = AutoModelForCausalLM.from_pretrained(home.settings.model.path)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, folder)), judged(home, 1), rtol=1e-4, atol=1e-4)
    assert "library_name: peft" in (folder / "README.md").read_text()


def test_whole_weights_are_copied(home: Home, tmp_path: Path) -> None:
    ratchet("export", "base", "--to", "deep/out")
    folder = tmp_path / "deep" / "out"
    with home.ledger.read() as session:
        assert weights_digest(folder) == session.get_one(CheckpointRow, home.base_id()).weights
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert "nothing was trained" in (folder / "README.md").read_text()


def test_what_cannot_be_exported_is_refused_in_a_sentence(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no adapters" in ratchet("export", "base", "--to", "out", "--adapter", code=2).stderr
    assert "deleted: retention" in ratchet("export", "2", "--to", "out", code=2).stderr
    assert "leave --adapter out" in ratchet("export", "--to", "out", "--adapter", "--ollama", code=2).stderr
    assert "Repo id" in ratchet("export", "--to", "out", "--push", "a/b/c", code=2).stderr
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in ratchet("export", "--to", "out", "--push", "acme/sums", code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_only_an_earlier_export_is_replaced(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    assert "is not empty" in ratchet("export", "base", "--to", "out", code=2).stderr
    assert "holds other things" in ratchet("export", "base", "--to", "out", "--force", code=2).stderr
    assert (folder / "thesis.tex").read_text() == "mine"
    (folder / "thesis.tex").unlink()
    ratchet("export", "base", "--to", "out")
    (folder / "note.txt").write_text("old")
    ratchet("export", "base", "--to", "out", "--force")
    assert not (folder / "note.txt").exists()


def test_where_a_checkpoint_lies(home: Home) -> None:
    with home.ledger.read() as session:
        rows = session.query(CheckpointRow).order_by(CheckpointRow.ordinal).all()
    places = [checkpoint_folder(home.settings, row) for row in rows]
    assert f"\nfiles: {places[1]}\n" in ratchet("why", "champion").stdout
    assert json.loads(ratchet("why", "2", "--json").stdout)["folder"] is None
    assert [place is not None and Path(place).is_dir() for place in places] == [True, True, False]
