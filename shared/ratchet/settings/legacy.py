"""The settings of the system that Ratchet replaces, field by field: what each is called now, or why it is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Convert = Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Kept:
    """A field that goes on as ``new``; ``convert`` turns an old value into a new one."""

    new: str
    note: str = ""
    convert: Convert = _as_it_is


@dataclass(frozen=True)
class Gone:
    """A field that is left out, and why."""

    because: str


Fate = Kept | Gone


def _trackers(value: Any) -> Any:
    """``"none"`` alone or in a list means no tracker."""
    listed = [value] if isinstance(value, str) else list(value or ())
    return [name for name in listed if name != "none"]


def _in_a_list(value: Any) -> Any:
    return None if value is None else [value]


def _unless_zero(value: Any) -> Any:
    """Zero and less meant: not set."""
    return value if isinstance(value, int | float) and value > 0 else None


def _same(section: str, *fields: str) -> dict[str, Fate]:
    return {f"{section}.{field}": Kept(f"{section}.{field}") for field in fields}


def _gone(because: str, *names: str) -> dict[str, Fate]:
    return {name: Gone(because) for name in names}


_NEVER_READ = "nothing ever read it"
_WATCHED = "metrics and the curve in status/training_status.json show a run"
_ONE_PRECISION = "hyperparams.fp_precision is the one setting of precision"
_TORCHRUN = "torchrun tells every process"

HYPERPARAMS: dict[str, Fate] = {
    **_same("hyperparams", "batch_size", "gradient_accumulation", "learning_rate", "warmup_steps", "num_epochs"),
    **_same("hyperparams", "max_length", "fp_precision"),
    "hyperparams.effective_batch_size": Gone("it is batch_size × gradient_accumulation × processes"),
    "hyperparams.max_steps": Kept("hyperparams.max_steps", convert=_unless_zero),
    "hyperparams.max_new_tokens": Kept("suites.max_new_tokens"),
    "hyperparams.save_steps": Kept("hyperparams.save_steps", convert=_unless_zero),
    "hyperparams.save_total_limit": Gone("checkpoints are kept by bytes: retention.checkpoints_gb"),
    "hyperparams.eval_steps": Kept("monitoring.preview_interval"),
    "hyperparams.eval_strategy": Gone("monitoring.preview_backend none turns previews off"),
    "hyperparams.use_gradient_checkpointing": Kept("model.gradient_checkpointing"),
}

PROFILE: dict[str, Fate] = {
    **_same("profile", "name", "options"),
    "profile.system_prompt_template": Kept("monitoring.system_prompt_base"),
}

MONITORING: dict[str, Fate] = {
    "monitoring.inference_interval": Kept("monitoring.preview_interval"),
    "monitoring.num_eval_samples": Kept("monitoring.preview_samples"),
    "monitoring.max_output_tokens": Kept("monitoring.preview_max_tokens"),
    "monitoring.max_eval_tokens": Kept("suites.max_new_tokens"),
    **_same("monitoring", "preview_backend", "preview_max_tokens", "preview_temperature"),
    "monitoring.remote_3090_timeout": Kept("monitoring.preview_timeout_s"),
    "monitoring.remote_3090_model_id": Kept("monitoring.preview_model"),
    "monitoring.remote_3090_host": Kept("monitoring.preview_url", "with its port"),
    "monitoring.remote_3090_port": Gone("it is part of monitoring.preview_url"),
    **_gone(
        "the testing system evaluates every checkpoint on the suites",
        "monitoring.micro_eval_interval",
        "monitoring.num_micro_eval_samples",
    ),
    "monitoring.max_output_samples": Gone("`ratchet previews` shows as many as are asked for"),
    "monitoring.status_update_interval": Kept("monitoring.status_interval_s", "seconds"),
    **_same("monitoring", "system_prompt_base"),
    "monitoring.validation_split": Kept("suites.held_out_share", "of every level and file", _unless_zero),
    "monitoring.validation_max_samples": Kept("suites.eval_items", convert=_unless_zero),
    **_gone(
        _WATCHED,
        "monitoring.enable_pattern_tracking",
        "monitoring.enable_layer_monitor",
        "monitoring.enable_evolution_tracker",
        "monitoring.enable_penalty_heatmap",
        "monitoring.prompt_snapshot_interval",
    ),
}

LOCKED: dict[str, Fate] = {
    **_same("locked", "base_model", "model_architecture", "max_context_length", "vocab_size"),
    "locked.model_version": Gone("checkpoints are named by the digest of their weights"),
    "locked.created_at": Gone("the ledger has the moment of the first run"),
}

DATA: dict[str, Fate] = {
    **_same("data", "dataset_path", "shuffle", "seed"),
    "data.validation_dataset_path": Kept("suites.files", "of which the held-out share is tested on", _in_a_list),
    "data.min_length": Gone("a short answer counts like any other; hyperparams.max_length alone bounds a row"),
    "data.max_length_override": Gone("hyperparams.max_length is the one length"),
    "data.augmentation": Gone(_NEVER_READ),
}

MODEL: dict[str, Fate] = {
    "model.model_path": Kept("model.path"),
    **_same("model", "tokenizer_path", "gradient_checkpointing"),
    "model.load_in_4bit": Kept("model.load_in_4bit", "with model.lora_rank"),
    "model.load_in_8bit": Gone("model.load_in_4bit with model.lora_rank takes less memory still"),
    "model.device_map": Gone("a process has one device: environment.device"),
    "model.torch_dtype": Gone(_ONE_PRECISION),
    "model.use_cache": Gone("training never uses the cache, generation always does"),
}

OUTPUT: dict[str, Fate] = {
    **_same("output", "output_dir"),
    "output.resume_from_checkpoint": Kept("output.resume_from"),
    "output.overwrite_output_dir": Gone("a run replaces what it writes, whole or not at all"),
    "output.save_safetensors": Gone("weights are always safetensors"),
    "output.logging_dir": Gone("logs are in home/logs"),
    "output.save_only_model": Gone("without its state a run cannot be gone on with exactly"),
}

ENVIRONMENT: dict[str, Fate] = {
    "environment.report_to": Kept("environment.report_to", convert=_trackers),
    "environment.logging_steps": Kept("monitoring.logging_steps"),
    "environment.max_grad_norm": Kept("hyperparams.max_grad_norm"),
    "environment.dataloader_num_workers": Gone("rows are tokenized once, before the first step"),
    "environment.dataloader_pin_memory": Gone("rows are tokenized once, before the first step"),
    "environment.local_rank": Gone(_TORCHRUN),
    "environment.world_size": Gone(_TORCHRUN),
    "environment.nan_detection": Gone("a loss that is not finite always ends the run"),
    "config_version": Gone("unknown keys are errors, so a file of another version says so itself"),
    "description": Gone(_NEVER_READ),
}

FLAT: dict[str, Fate] = {
    "model_path": Kept("model.path"),
    "base_model": Kept("locked.base_model"),
    "batch_size": Kept("hyperparams.batch_size"),
    "gradient_accumulation": Kept("hyperparams.gradient_accumulation"),
    "learning_rate": Kept("hyperparams.learning_rate"),
    "warmup": Kept("hyperparams.warmup_steps"),
    "warmup_steps": Kept("hyperparams.warmup_steps"),
    "epochs": Kept("hyperparams.num_epochs"),
    "max_length": Kept("hyperparams.max_length"),
    "save_steps": Kept("hyperparams.save_steps", convert=_unless_zero),
    "eval_steps": Kept("monitoring.preview_interval"),
    "num_eval_samples": Kept("monitoring.preview_samples"),
    "log_steps": Kept("monitoring.logging_steps"),
    "eval_max_tokens": Kept("suites.max_new_tokens"),
    "eval_timeout_seconds": Kept("inference.timeout_s"),
    "lora_r": Kept("model.lora_rank"),
    "lora_alpha": Kept("model.lora_alpha", convert=_unless_zero),
    "use_qlora": Kept("model.load_in_4bit"),
    "model_name": Gone("clients ask for serving.alias"),
    "model_display_name": Gone("clients ask for serving.alias"),
    "current_model_dir": Gone("checkpoints are artifacts; the line knows its head"),
    "poll_interval": Gone("a batch that is queued wakes training at once"),
    "snapshot_time": Gone("every checkpoint is kept with its manifest; retention.checkpoints_gb bounds them"),
}

BLOCKS: dict[str, Fate] = {
    "self_correction.max_examples": Kept("queue.correction_examples"),
    **_gone(
        "the correction system always runs; queue.correction_share caps it",
        "self_correction.enabled",
        "self_correction.auto_queue",
        "self_correction.generation_interval",
    ),
    **_gone(
        "generation answers queue.low, in examples: queue.low_water, high_water and batch_examples",
        "auto_generate.enabled",
        "auto_generate.count",
        "auto_generate.priority",
        "auto_generate.threshold",
        "auto_generate.seed",
        "auto_generate.cooldown_sec",
        "auto_generate.payload",
        "auto_generate.host",
        "auto_generate.port",
    ),
    **_gone(
        "the testing system evaluates every checkpoint on the suites",
        "remote_eval.enabled",
        "remote_eval.host",
        "remote_eval.port",
        "remote_eval.remote_user",
        "remote_eval.remote_models_dir",
        "remote_eval.eval_dataset",
        "remote_eval.eval_interval_steps",
        "remote_eval.sync_checkpoints",
        "remote_eval.metrics",
    ),
    "curriculum.target_accuracy": Kept("curriculum.mastery"),
    "curriculum.enabled": Gone("the curriculum system always runs"),
    "curriculum.current_skill": Gone("suites.families names what is taught, with its levels"),
    "curriculum.progression_mode": Gone("the curriculum finds each family's frontier by measurement"),
}

FIELDS: Mapping[str, Fate] = {
    **HYPERPARAMS,
    **PROFILE,
    **MONITORING,
    **LOCKED,
    **DATA,
    **MODEL,
    **OUTPUT,
    **ENVIRONMENT,
    **FLAT,
    **BLOCKS,
}
"""Every field of the prior system by its dotted name."""
