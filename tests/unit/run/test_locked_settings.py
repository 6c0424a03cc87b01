"""Base model, architecture, context length and vocabulary stay what they were at the first run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.errors import SettingsError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import CheckpointRow, LockedSettingRow
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings, load

from tests.support.home import SMALL, made_up_model, merged


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    made_up_model({"folder": str(folder)})
    return folder


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    yield ledger
    ledger.close()


class Runs:
    """Runs that share a home."""

    def __init__(self, home: Path, ledger: Ledger, model: Path):
        self.home, self.ledger, self.model = home, ledger, model
        self.artifacts = ArtifactStore(f"file://{home / 'artifacts'}")

    def start(self, settings: Settings | None = None, **sections: Any) -> bool:
        given = merged(SMALL, merged({"model": {"path": str(self.model)}}, sections))
        return bootstrap(settings or Settings(home=self.home, **given), self.ledger, self.artifacts, self._prepare)

    def _prepare(self, _settings: Settings, spec: dict[str, Any]) -> None:
        made_up_model(spec)

    def locked(self) -> dict[str, str]:
        with self.ledger.read() as session:
            return {row.name: row.value for row in session.query(LockedSettingRow)}

    def checkpoints(self) -> int:
        with self.ledger.read() as session:
            return session.query(CheckpointRow).count()


@pytest.fixture
def runs(tmp_path: Path, ledger: Ledger, model: Path) -> Runs:
    return Runs(tmp_path / "run", ledger, model)


def test_the_first_run_records_the_model_on_disk(runs: Runs, model: Path) -> None:
    runs.start()
    locked = runs.locked()
    assert len(locked.pop("vocabulary")) == 64
    assert locked == {
        "base_model": str(model),
        "model_path": str(model),
        "model_architecture": "MadeUp",
        "max_context_length": "1024",
        "vocab_size": "1",
        "suites.seed": "20261",
        "suites.held_out_share": "0.2",
    }


def test_a_model_has_a_name_and_a_context_of_its_own(runs: Runs) -> None:
    runs.start(locked={"base_model": "some/model", "max_context_length": 512, "model_architecture": "MadeUp"})
    assert runs.locked()["base_model"] == "some/model"
    assert runs.locked()["max_context_length"] == "512"
    assert not runs.start(locked={"base_model": "some/model"})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"locked": {"model_architecture": "Qwen3ForCausalLM"}}, "is Qwen3ForCausalLM, but .* has MadeUp"),
        ({"locked": {"vocab_size": 151_936}}, "is 151936, but .* has 1 "),
        ({"locked": {"max_context_length": 2048}}, "is 2048, but .* has 1024 .*or less"),
        ({"hyperparams": {"max_length": 1025}}, "max_length 1025 exceeds the context length of 1024"),
        ({"locked": {"max_context_length": 64}}, "max_length 128 exceeds the context length of 64"),
    ],
)
def test_the_first_run_refuses_a_model_that_differs_from_the_locked_settings(
    runs: Runs, sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        runs.start(**sections)
    assert runs.locked() == {}
    assert runs.checkpoints() == 0


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"path": "other"}}, r"model.path is other, but .* was created with .*mine.* locked.*reset"),
        ({"locked": {"base_model": "other"}}, r"locked.base_model is other, but .* was created with .*mine.*reset"),
        ({"locked": {"model_architecture": "Llama"}}, r"is Llama, but .* was created with MadeUp.*reset"),
        ({"locked": {"max_context_length": 512}}, r"is 512, but .* was created with 1024.*reset"),
        ({"locked": {"vocab_size": 2}}, r"is 2, but .* was created with 1, .*reset"),
        ({"hyperparams": {"max_length": 2048}}, r"max_length 2048 exceeds .* 1024 .* was created with"),
    ],
)
def test_a_later_run_refuses_a_change(runs: Runs, sections: dict[str, Any], said: str) -> None:
    runs.start()
    before = runs.locked()
    with pytest.raises(SettingsError, match=said):
        runs.start(**sections)
    assert runs.locked() == before
    assert not runs.start()


@pytest.mark.parametrize("way", ["file", "environment", "argument"])
def test_a_change_from_any_source_is_refused(
    runs: Runs, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.start()
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"home": runs.home, **merged(SMALL, {"model": {"path": str(runs.model)}})}
    if way == "file":
        Path("ratchet.toml").write_text("[locked]\nvocab_size = 2\n")
    elif way == "environment":
        monkeypatch.setenv("RATCHET_LOCKED__VOCAB_SIZE", "2")
    else:
        given["locked"] = {"vocab_size": 2}
    with pytest.raises(SettingsError, match=r"locked.vocab_size is 2, but .* was created with 1"):
        runs.start(load(**given))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"architectures": ["Other"]}, "model_architecture of .*mine is Other, but"),
        ("config.json", {"vocab_size": 7}, "vocab_size of .*mine is 7, but"),
        ("tokenizer.json", {"model": {"vocab": {"!": 0}}}, "vocabulary of .*mine is .*…, but"),
    ],
)
def test_a_model_exchanged_on_disk_is_noticed(runs: Runs, file: str, change: dict[str, Any], said: str) -> None:
    runs.start()
    path = runs.model / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SettingsError, match=said):
        runs.start()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(runs: Runs) -> None:
    class Larger(Runs):
        def _prepare(self, _settings: Settings, spec: dict[str, Any]) -> None:
            made_up_model(spec)
            path = Path(spec["folder"]) / "tokenizer.json"
            path.write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))

    with pytest.raises(SettingsError, match=r"has 2 tokens, but .* embedding of 1.*tokenizer_path"):
        Larger(runs.home, runs.ledger, runs.model).start()
