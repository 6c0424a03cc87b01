from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore, weights_digest
from ratchet.data.example import Example
from ratchet.errors import PreconditionFailed, SettingsError
from ratchet.evaluation.build_suites import held_out
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS, Pool, Suite
from ratchet.ledger import Ledger
from ratchet.ledger.deployments import champion, serving
from ratchet.ledger.lineage import head, lineage
from ratchet.ledger.migrate import migrate
from ratchet.ledger.suites import current
from ratchet.ledger.tables import CheckpointRow, DeploymentRow, OutboxRow, SuiteRow, TaskRow
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings
from ratchet.user_tasks import add
from ratchet.user_tasks.general import TASK, read_prompts
from ratchet.user_tasks.suites import publish_rows

from tests.support.home import SMALL, made_up_model


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


def test_the_first_run_creates_suites_base_model_champion_and_lineage(
    tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore
) -> None:
    wanted = settings(tmp_path)
    assert bootstrap(wanted, ledger, artifacts, prepare)
    with ledger.read() as session:
        base = session.query(CheckpointRow).one()
        assert champion(session).id == head(session).id == base.id
        assert lineage(session).fresh_optimizer
        assert serving(session).actual_id is None
        assert [row.action for row in session.query(DeploymentRow)] == ["base"]
        assert [row.name for row in session.query(OutboxRow)] == ["checkpoint.saved"]
        suites = {pool: load_suite(artifacts, current(session, pool)) for pool in ("probe", "eval", "confirm")}
    assert base.ordinal == 0
    assert base.weights == weights_digest(artifacts.manifest(base.artifact))
    assert [len(suite.items) for suite in suites.values()] == [40, 80, 120]
    keys = [key for suite in suites.values() for key in suite.keys]
    assert len(set(keys)) == 240
    assert all(key in held_out(wanted.suites) for key in keys)


def test_a_second_start_changes_nothing(tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore) -> None:
    bootstrap(settings(tmp_path), ledger, artifacts, prepare)
    before = sorted(artifacts.ids())
    assert not bootstrap(settings(tmp_path), ledger, artifacts, never)
    assert sorted(artifacts.ids()) == before
    with ledger.read() as session:
        assert session.query(SuiteRow).count() == 3
        assert session.query(OutboxRow).count() == 1


def test_a_failed_first_run_leaves_nothing_behind(tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore) -> None:
    def killed(_settings: Settings, spec: dict[str, Any]) -> dict[str, str]:
        made_up_model(spec)
        (Path(spec["folder"]) / "model-2.safetensors").write_text("half")
        raise SettingsError("out of disk")

    with pytest.raises(SettingsError, match="out of disk"):
        bootstrap(settings(tmp_path), ledger, artifacts, killed)
    with ledger.read() as session, pytest.raises(PreconditionFailed, match="`ratchet run`"):
        lineage(session)
    assert bootstrap(settings(tmp_path), ledger, artifacts, prepare)
    with ledger.read() as session:
        base = session.query(CheckpointRow).one()
    files = [file.path for file in artifacts.manifest(base.artifact).files]
    assert files == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]


def suites_of(ledger: Ledger, artifacts: ArtifactStore) -> dict[str, Suite]:
    with ledger.read() as session:
        return {pool: load_suite(artifacts, current(session, pool)) for pool in POOLS}


def cells_of(suite: Suite) -> set[tuple[str | None, int]]:
    return {(item.family, item.level) for item in suite.items}


def test_families_and_levels_that_are_named_later_come_into_the_suites(
    tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore
) -> None:
    bootstrap(settings(tmp_path), ledger, artifacts, prepare)
    before = suites_of(ledger, artifacts)
    with ledger.write() as tx:
        current(tx.session, "confirm").uses = 7
    named = [{"name": "chain_sum", "levels": [1, 2, 3]}, {"name": "sort_digits", "levels": [1]}]
    changed = settings(tmp_path, suites={**SMALL["suites"], "families": named})
    for _ in range(2):
        assert not bootstrap(changed, ledger, artifacts, prepare)
    after = suites_of(ledger, artifacts)
    wanted = {("chain_sum", level) for level in (1, 2, 3)} | {("sort_digits", 1)}
    assert all(cells_of(suite) == wanted for suite in after.values())
    assert {suite.version for suite in after.values()} == {1}
    for pool in POOLS:
        sums = {item.id for item in before[pool].items if item.family == "chain_sum"}
        assert sums <= {item.id for item in after[pool].items}
        others = set().union(*(before[other].keys | after[other].keys for other in POOLS if other != pool))
        assert not after[pool].keys & others
    with ledger.read() as session:
        assert current(session, "confirm").uses == 7
        assert session.query(SuiteRow).count() == 6


def test_general_prompts_that_users_rows_ask_are_left_out(
    tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = settings(
        tmp_path, model={"path": "ORG/BASE"}, suites={**SMALL["suites"], "families": [], "general_prompts": "builtin"}
    )
    prompts = read_prompts("builtin")
    file = tmp_path / "mine.jsonl"
    own = [*(f"{prompt.upper()} " for prompt in prompts[::2]), *(f"Room {n}, which floor?" for n in range(40))]
    file.write_text("".join(Example.ask(text, f"It is so: {n}.").to_line() + "\n" for n, text in enumerate(own)))
    prepared = add.prepare(wanted, ledger, artifacts, file, file.name, add.Choice(metric="loss"))
    assert prepared is not None
    add.add_prepared(wanted, ledger, artifacts, prepared)
    # What a first run has left that did not end, before the rows were added.
    with ledger.write() as tx:
        left = {pool: publish_rows(artifacts, prepared.split.held_out["eval"], "suite") for pool in POOLS}
        tx.session.add(general_task(left, tx.now))

    def answer(_settings: Settings, spec: dict[str, Any]) -> dict[str, list[str]]:
        return {"answers": [f"An answer to {prompt}" for prompt in spec["prompts"]]}

    with caplog.at_level("INFO"):
        assert bootstrap(wanted, ledger, artifacts, prepare, answer)
    assert f"{len(prompts[::2])} general prompts are left out" in caplog.text
    asked = [
        i.question for suite in suites_of(ledger, artifacts).values() for i in suite.items if i.family == "general"
    ]
    assert asked
    assert set(asked) <= set(prompts[1::2])


def general_task(held_out: dict[Pool, str], now: float) -> TaskRow:
    values = {**TASK.model_dump(), "source": "builtin", "rows": 3, "held_rows": 3}
    return TaskRow(**values, held_out=dict(held_out), created_at=now, updated_at=now)


@pytest.mark.parametrize(("name", "value"), [("seed", 5), ("held_out_share", 0.1)])
def test_the_settings_that_decide_held_out_items_are_locked(
    tmp_path: Path, ledger: Ledger, artifacts: ArtifactStore, name: str, value: float
) -> None:
    bootstrap(settings(tmp_path), ledger, artifacts, prepare)
    changed = settings(tmp_path, suites={**SMALL["suites"], name: value})
    with pytest.raises(SettingsError, match=rf"suites\.{name} is {value}, but .* which is locked"):
        bootstrap(changed, ledger, artifacts, prepare)
