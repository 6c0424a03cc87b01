from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore, weights_digest
from ratchet.errors import Refused, SettingsError
from ratchet.evaluation.standing import held_out
from ratchet.evaluation.stored import stored_suite
from ratchet.ledger import Ledger
from ratchet.ledger.line import champion, head, line, serving
from ratchet.ledger.migrate import migrate
from ratchet.ledger.suites import current
from ratchet.ledger.tables import Checkpoint, Deployment, Outbox, SuiteRow
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings
from ratchet.testing.home import SMALL, made_up_model


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    yield ledger
    ledger.close()


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path / 'artifacts'}")


def settings(folder: Path, **sections: Any) -> Settings:
    return Settings(home=folder, **{**SMALL, **sections})


def prepare(_settings: Settings, spec: dict[str, Any]) -> dict[str, str]:
    return made_up_model(spec)


def never(_settings: Settings, _spec: dict[str, Any]) -> dict[str, str]:
    raise AssertionError("the base model is there already")


def test_the_first_run_makes_suites_base_model_champion_and_line(
    tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore
) -> None:
    wanted = settings(tmp_path)
    assert bootstrap(wanted, ledger, artifacts, prepare)
    with ledger.read() as session:
        base = session.query(Checkpoint).one()
        assert champion(session).id == head(session).id == base.id
        assert line(session).fresh_optimizer
        assert serving(session).actual_id is None
        assert [row.action for row in session.query(Deployment)] == ["base"]
        assert [row.name for row in session.query(Outbox)] == ["checkpoint.saved"]
        suites = {pool: stored_suite(artifacts, current(session, pool)) for pool in ("probe", "eval", "confirm")}
    assert base.ordinal == 0
    assert base.weights == weights_digest(artifacts.manifest(base.artifact))
    assert [len(suite.items) for suite in suites.values()] == [40, 80, 120]
    keys = [key for suite in suites.values() for key in suite.keys]
    assert len(set(keys)) == 240
    assert all(key in held_out(wanted.suites) for key in keys)


def test_the_second_time_nothing_happens(tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore) -> None:
    bootstrap(settings(tmp_path), ledger, artifacts, prepare)
    before = sorted(artifacts.ids())
    assert not bootstrap(settings(tmp_path), ledger, artifacts, never)
    assert sorted(artifacts.ids()) == before
    with ledger.read() as session:
        assert session.query(SuiteRow).count() == 3
        assert session.query(Outbox).count() == 1


def test_a_first_run_that_failed_half_way_leaves_nothing_behind_for_the_second(
    tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore
) -> None:
    def killed(_settings: Settings, spec: dict[str, Any]) -> dict[str, str]:
        made_up_model(spec)
        (Path(spec["folder"]) / "model-2.safetensors").write_text("half")
        raise SettingsError("out of disk")

    with pytest.raises(SettingsError, match="out of disk"):
        bootstrap(settings(tmp_path), ledger, artifacts, killed)
    with ledger.read() as session, pytest.raises(Refused, match="`ratchet run`"):
        line(session)
    assert bootstrap(settings(tmp_path), ledger, artifacts, prepare)
    with ledger.read() as session:
        base = session.query(Checkpoint).one()
    files = [file.path for file in artifacts.manifest(base.artifact).files]
    assert files == ["config.json", "model.safetensors", "tokenizer.json"]
