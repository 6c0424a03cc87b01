"""The ``config.json`` of the prior system: what each of its names is called today, or why it is gone.

It has the sections ``profile``, ``hyperparams``, ``monitoring`` and ``locked``, and paths of model, data and output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Tree = dict[str, Any]


def _unchanged(value: Any) -> Any:
    return value


def _unless_zero(value: Any) -> Any:
    """Zero and less meant: not set."""
    return value if isinstance(value, int | float) and value > 0 else None


@dataclass(frozen=True)
class Kept:
    """A field that is called ``new`` today; ``convert`` turns an old value into a new one, or into None for unset."""

    new: str
    note: str = ""
    convert: Callable[[Any], Any] = _unchanged


@dataclass(frozen=True)
class Gone:
    """A field that is left out, and why."""

    because: str


Fate = Kept | Gone

_PREVIEWS = "an answer of a preview is greedy, and has at most 128 tokens and 10 s"
_WATCHED = "metrics and the curve in status/training_status.json show a run"
_TESTED = "the testing system evaluates every checkpoint on the suites"

FIELDS: Mapping[str, Fate] = {
    "profile.system_prompt_template": Kept("monitoring.system_prompt_base"),
    "hyperparams.max_steps": Kept("hyperparams.max_steps", "0 means unset", _unless_zero),
    "hyperparams.save_steps": Kept("hyperparams.save_steps", "0 means unset", _unless_zero),
    "hyperparams.max_new_tokens": Kept("suites.max_new_tokens"),
    "hyperparams.eval_steps": Kept("monitoring.preview_interval"),
    "hyperparams.use_gradient_checkpointing": Kept("model.gradient_checkpointing"),
    "hyperparams.effective_batch_size": Gone("it is batch_size × gradient_accumulation × processes"),
    "hyperparams.save_total_limit": Gone("checkpoints are kept by bytes: retention.checkpoints_gb"),
    "hyperparams.eval_strategy": Gone("monitoring.preview_backend none turns previews off"),
    "monitoring.status_update_interval": Gone("the status is written at most once a second"),
    "monitoring.inference_interval": Kept("monitoring.preview_interval"),
    "monitoring.num_eval_samples": Kept("monitoring.preview_samples"),
    "monitoring.max_output_tokens": Gone(_PREVIEWS),
    "monitoring.max_eval_tokens": Kept("suites.max_new_tokens"),
    "monitoring.validation_split": Kept("suites.held_out_share", "of every level and file", _unless_zero),
    "monitoring.validation_max_samples": Kept("suites.eval_items", "0 means unset", _unless_zero),
    "monitoring.remote_3090_host": Kept("monitoring.preview_url", "with its port"),
    "monitoring.remote_3090_port": Gone("it is part of monitoring.preview_url"),
    "monitoring.remote_3090_timeout": Gone(_PREVIEWS),
    "monitoring.remote_3090_model_id": Kept("monitoring.preview_model"),
    "monitoring.micro_eval_interval": Gone(_TESTED),
    "monitoring.num_micro_eval_samples": Gone(_TESTED),
    "monitoring.max_output_samples": Gone("`ratchet show previews` shows as many as are asked for"),
    "monitoring.prompt_snapshot_interval": Gone(_WATCHED),
    "monitoring.enable_pattern_tracking": Gone(_WATCHED),
    "monitoring.enable_layer_monitor": Gone(_WATCHED),
    "monitoring.enable_evolution_tracker": Gone(_WATCHED),
    "monitoring.enable_penalty_heatmap": Gone(_WATCHED),
    "locked.model_version": Gone("checkpoints are named by the digest of their weights"),
    "locked.created_at": Gone("the ledger has the time of the first run"),
    "model.model_path": Kept("model.path"),
    "model_path": Kept("model.path"),
    "output.resume_from_checkpoint": Kept("output.resume_from"),
}
"""By dotted name: every field of the prior file that is not read under its own name."""


def rename(tree: Mapping[str, Any]) -> tuple[Tree, list[str]]:
    """The tree under the names of today, and a note for each name that has changed.

    Where a file gives a setting under both names, the one of today counts.
    """
    renamed: Tree = {}
    notes: list[str] = []
    moved: list[tuple[str, Kept, Any]] = []
    for name, value in _leaves(_with_port(tree)):
        fate = FIELDS.get(name)
        if isinstance(fate, Gone):
            notes.append(f"{name} is ignored: {fate.because}.")
        elif fate is None:
            _put(renamed, name, value)
        elif fate.new == name:
            if (converted := fate.convert(value)) is not None:
                _put(renamed, name, converted)
        else:
            moved.append((name, fate, value))
    for name, kept, value in moved:
        if _has(renamed, kept.new):
            notes.append(f"{name} is ignored: {kept.new} is set as well, and that is its name now.")
        elif value is not None and (converted := kept.convert(value)) is not None:
            _put(renamed, kept.new, converted)
            notes.append(f"{name} is called {kept.new} now.")
    return renamed, notes


def _with_port(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Host and port of the prior system's preview server are one address."""
    monitoring = tree.get("monitoring")
    if not isinstance(monitoring, Mapping) or not monitoring.get("remote_3090_host"):
        return tree
    host, port = str(monitoring["remote_3090_host"]), monitoring.get("remote_3090_port", 8765)
    address = host if "://" in host else f"http://{host}:{port}"
    return {**tree, "monitoring": {**monitoring, "remote_3090_host": address}}


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """``section.field`` and value; what is no section keeps its own name. An empty section is left out."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{field}", inner) for field, inner in value.items())
        else:
            yield name, value


def _has(tree: Tree, name: str) -> bool:
    section, _, field = name.rpartition(".")
    holder = tree.get(section, {}) if section else tree
    return isinstance(holder, dict) and field in holder


def _put(tree: Tree, name: str, value: Any) -> None:
    """A value where a section is expected stays, so that validation complains of it."""
    section, _, field = name.rpartition(".")
    holder = tree.setdefault(section, {}) if section else tree
    if isinstance(holder, dict):
        holder[field] = value
