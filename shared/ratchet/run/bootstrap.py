"""Sets up an empty ledger: test suites, the base model as checkpoint 0 and champion, and the locked settings.

On an existing ledger it checks the locked settings and updates the suites to the configured families and levels. It
does not know how a base model is found and copied (see base_model).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ratchet.artifacts import Artifact, ArtifactStore, weights_digest
from ratchet.data.example import Example
from ratchet.errors import SettingsError
from ratchet.evaluation.build_suites import build_suites
from ratchet.evaluation.load_evaluation import suite_row
from ratchet.events.catalogue import CheckpointSaved
from ratchet.inference.model_folder import UNKNOWN, ModelInfo, check_locked, read_model_info
from ratchet.inference.prompt_format import day_of
from ratchet.inference.tiny import TINY_MODEL
from ratchet.ledger import Ledger, Transaction, deployments
from ratchet.ledger.lineage import MAIN, checkpoint_id
from ratchet.ledger.tables import CheckpointRow, LineageRow, LockedSettingRow, TaskRow
from ratchet.plugins import require_plugins
from ratchet.processes.child_runner import ChildRunner
from ratchet.settings import Settings
from ratchet.tasks.graders import text_key
from ratchet.user_tasks.general import REPLAY, TASK, GeneralSpec, general_rows, read_prompts
from ratchet.user_tasks.known_rows import Known, given_rows
from ratchet.user_tasks.suites import held_out_rows, publish_rows, publish_suites, renew_suites

log = logging.getLogger(__name__)

Prepare = Callable[[Settings, dict[str, Any]], object]
"""Copies the base model into the folder that a spec names (see ratchet.run.base_model)."""

Answer = Callable[[Settings, dict[str, Any]], Mapping[str, Any]]
"""The base model's answers to the prompts of a GeneralSpec (see ratchet.user_tasks.general)."""

PREPARE = "ratchet.run.base_model:prepare_base_model"
ANSWER_PROMPTS = "ratchet.user_tasks.general:answer_prompts"
HELD_OUT_BY = ("seed", "held_out_share")
"""Suite settings that determine which items are held out. A change would put tested items into training."""
WAY_OUT = "Set it back, or start again with another home (or `ratchet reset`)."


def prepare_in_child(settings: Settings, spec: dict[str, Any]) -> object:
    """Prepare the base model in a child process, since it needs torch."""
    return run_in_child(settings, PREPARE, spec)


def answer_in_child(settings: Settings, spec: dict[str, Any]) -> Mapping[str, Any]:
    """Have the base model answer general prompts in a child process, since it needs torch."""
    return run_in_child(settings, ANSWER_PROMPTS, spec)


def run_in_child(settings: Settings, target: str, spec: dict[str, Any]) -> Mapping[str, Any]:
    """Call a function in a child process. Its notes of progress are logged."""
    settings.log_folder.mkdir(parents=True, exist_ok=True)
    with ChildRunner() as children:
        return children.run(target, spec, log_path=settings.log_folder / "bootstrap.child.log", on_progress=_log_note)


def _log_note(message: Mapping[str, Any]) -> None:
    if note := message.get("note"):
        log.info("%s", note)


def bootstrap(
    settings: Settings,
    ledger: Ledger,
    artifacts: ArtifactStore,
    prepare: Prepare = prepare_in_child,
    answer: Answer = answer_in_child,
) -> bool:
    """Set up an empty ledger; returns whether it was empty. Raises SettingsError for an unusable base model.

    On an existing ledger it raises SettingsError for a change of a locked setting. If families, levels or tasks have
    changed, it publishes new versions of the suites.
    """
    require_plugins(settings)
    with ledger.read() as session:
        is_set_up = session.get(LineageRow, MAIN) is not None
        locked = {row.name: row.value for row in session.query(LockedSettingRow)}
    if is_set_up:
        require_unchanged(settings, locked)
        renew_suites(settings, ledger, artifacts)
        return False
    model, to_lock = _publish_base(settings, artifacts, prepare)
    add_general_task(settings, ledger, artifacts, model, answer)
    with ledger.read() as session:
        own = held_out_rows(session, artifacts)
    suites = publish_suites(list(build_suites(settings.suites, own).values()), artifacts)
    with ledger.write() as tx:
        if tx.session.get(LineageRow, MAIN) is None:
            tx.session.add_all(suite_row(suite, artifact, tx.now) for suite, artifact in suites)
            _record_base(tx, model)
            tx.session.add_all(
                LockedSettingRow(name=name, value=value, locked_at=tx.now) for name, value in to_lock.items()
            )
    return True


def _publish_base(settings: Settings, artifacts: ArtifactStore, prepare: Prepare) -> tuple[Artifact, dict[str, str]]:
    folder = settings.work_folder / "base"
    shutil.rmtree(folder, ignore_errors=True)
    spec: dict[str, Any] = {
        "model": settings.model.path,
        "tokenizer": settings.model.tokenizer_path,
        "chat_template": settings.model.chat_template and str(settings.model.chat_template),
        "folder": str(folder),
    }
    prepare(settings, spec)
    to_lock = values_to_lock(settings, read_model_info(folder))
    provenance = {"base_model": settings.model.path}
    return artifacts.publish(folder, "checkpoint", provenance, consume=True), to_lock


def add_general_task(
    settings: Settings, ledger: Ledger, artifacts: ArtifactStore, model: Artifact, answer: Answer = answer_in_child
) -> None:
    """Add the task ``general`` with the base model's answers, unless it is the built-in model, which knows nothing.

    It takes the place of one that a first run has left which did not end: users' rows may have been added since.
    """
    with ledger.write() as tx:
        left = tx.session.get(TaskRow, TASK.name)
        if left is not None and tx.session.get(LineageRow, MAIN) is None:
            tx.session.delete(left)
    prompts = () if settings.model.path == TINY_MODEL else read_prompts(settings.suites.general_prompts)
    prompts = _not_asked_by_users(prompts, ledger, artifacts)
    if not prompts:
        return
    now = ledger.now()
    spec = GeneralSpec(
        folder=artifacts.fetch(model.id),
        prompts=prompts,
        max_length=settings.hyperparams.max_length,
        inference=settings.inference,
        profile=settings.profile.name,
        profile_options=settings.profile.options,
        template_variables=settings.profile.template_variables,
        system_prompt=settings.monitoring.system_prompt_base,
        day=day_of(now),
    )
    answered = answer(settings, spec.model_dump(mode="json"))
    held, replayed = general_rows(prompts, answered["answers"])
    if not replayed:
        log.warning("the base model ends too few of its answers to general prompts, so nothing protects them")
        return
    published: dict[str, str] = {pool: publish_rows(artifacts, rows, "suite") for pool, rows in held.items()}
    published |= {REPLAY: publish_rows(artifacts, replayed, "batch")}
    count = sum(map(len, held.values()))
    with ledger.write() as tx:
        if tx.session.get(TaskRow, TASK.name) is None:
            tx.session.add(
                TaskRow(
                    **TASK.model_dump(),
                    source=str(settings.suites.general_prompts),
                    held_out=published,
                    rows=count + len(replayed),
                    held_rows=count,
                    created_at=tx.now,
                    updated_at=tx.now,
                )
            )


def _not_asked_by_users(prompts: tuple[str, ...], ledger: Ledger, artifacts: ArtifactStore) -> tuple[str, ...]:
    """The prompts that are no row of a user's task: those are held out, or taught other answers than the base's."""
    with ledger.read() as session:
        held = held_out_rows(session, artifacts)
        given = Known.of(session, TASK.name).given
    keys = {prompt: text_key(Example.ask(prompt, "")) for prompt in prompts}
    rows = chain(*held.values(), (row for _, row in given_rows(artifacts, given)))
    asked = set(keys.values()).intersection(map(text_key, rows))
    if asked:
        log.info("%d general prompts are left out: your rows ask the same", len(asked))
    return tuple(prompt for prompt in prompts if keys[prompt] not in asked)


def _record_base(tx: Transaction, model: Artifact) -> None:
    """Checkpoint 0: champion, live from the start, and the head of the lineage."""
    weights = weights_digest(model.manifest)
    base = CheckpointRow(
        id=checkpoint_id(0, weights),
        ordinal=0,
        parent_id=None,
        batch_id=None,
        step=0,
        tokens=0,
        weights=weights,
        artifact=model.id,
        state_artifact=None,
        size_bytes=model.size_bytes,
        created_at=tx.now,
    )
    tx.session.add(base)
    tx.session.flush()
    tx.session.add(
        LineageRow(name=MAIN, head_id=base.id, fresh_optimizer=True, running_batch_id=None, updated_at=tx.now)
    )
    deployments.begin(tx, base.id)
    tx.emit(CheckpointSaved(checkpoint_id=base.id, step=0))


def values_to_lock(settings: Settings, info: ModelInfo) -> dict[str, str]:
    """The values that the first run records. Raises SettingsError if the model on disk does not match the settings."""
    held = check_locked(settings.locked, info, settings.hyperparams.max_length, settings.model.path)
    path = settings.model.path
    suites = {f"suites.{name}": str(getattr(settings.suites, name)) for name in HELD_OUT_BY}
    return {"base_model": settings.locked.base_model or path, "model_path": path, **suites, **held.recorded()}


def require_unchanged(settings: Settings, recorded: Mapping[str, str]) -> None:
    """Raise SettingsError, with old value, new value and a remedy, for a change of a locked setting.

    It does not matter whether the change comes from the file, the environment, the command line, or from a model that
    was replaced on disk under the same name.
    """
    _compare(settings, "model.path", settings.model.path, recorded.get("model_path"))
    for name in ("base_model", "model_architecture", "max_context_length", "vocab_size"):
        _compare(settings, f"locked.{name}", getattr(settings.locked, name), recorded.get(name))
    for name in HELD_OUT_BY:
        _compare(settings, f"suites.{name}", getattr(settings.suites, name), recorded.get(f"suites.{name}"))
    context = recorded.get("max_context_length", UNKNOWN)
    if context != UNKNOWN and settings.hyperparams.max_length > int(context):
        raise SettingsError(
            f"hyperparams.max_length {settings.hyperparams.max_length} exceeds the context length of {context} that "
            f"{settings.home} was created with, which is locked. Set it to {context} or less."
        )
    _compare_disk(settings, recorded)


def _compare(settings: Settings, name: str, value: object, was: str | None) -> None:
    if value is not None and was is not None and str(value) != was:
        home = settings.home
        raise SettingsError(f"{name} is {value}, but {home} was created with {was}, which is locked. {WAY_OUT}")


def _compare_disk(settings: Settings, recorded: Mapping[str, str]) -> None:
    """Check a base model in a folder, which may have been replaced. A hub model was copied at the first run."""
    folder = Path(settings.model.path)
    if settings.model.path == TINY_MODEL or not folder.is_dir():
        return
    own = settings.model.tokenizer_path
    tokenizer = Path(own) if own is not None and Path(own).is_dir() else None
    now = read_model_info(folder, tokenizer).recorded()
    for name in ("model_architecture", "vocab_size", "vocabulary"):
        if recorded.get(name) not in (None, now[name]):
            raise SettingsError(
                f"{name} of {folder} is {_short(now[name])}, but {settings.home} was created with "
                f"{_short(recorded[name])}, which is locked. Put the model back as it was, or start again with another "
                "home (or `ratchet reset`)."
            )


def _short(value: str) -> str:
    return f"{value[:12]}…" if len(value) == 64 else value
