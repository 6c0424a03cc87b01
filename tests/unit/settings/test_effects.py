"""No setting is an ornament: each is read by code that acts on it; those in SHOWN have a test that shows their effect.

To add a field: read it somewhere. Then add a row to SHOWN, under the file of the test: ``"section.field": "test"``,
with a test that sets the field and sees what changes; the field's name must stand in that test. For a field without a
row it is checked only that some module outside the settings reads it, which is the least.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from ratchet.settings import Settings
from ratchet.settings.nearest import names
from ratchet.settings.training import TrainerConfig

ROOT = Path(__file__).parents[3]
SETTINGS = ROOT / "shared" / "ratchet" / "settings"

SHOWN: dict[str, dict[str, str]] = {
    "integration/serving/test_vllm.py": {
        "serving.engine": "test_a_profile_that_steers_decoding_by_code_is_refused",
        "serving.vllm_command": "test_a_profile_that_steers_decoding_by_code_is_refused",
        "serving.vllm_adapter_base": "test_a_checkpoint_with_adapters_beside_its_merged_weights_is_served_as_either",
    },
    "integration/worker/test_deaths.py": {
        "control.grace_s": "test_work_that_does_not_give_way_is_left_behind_and_its_claim_given_back",
        "control.backoff_first_s": "test_what_died_before_its_relay_is_relayed_by_another",
        "control.backoff_last_s": "test_what_died_before_its_relay_is_relayed_by_another",
    },
    "integration/worker/test_flower.py": {
        "control.task_events": "test_a_look_that_an_event_started_is_seen_as_a_task",
    },
    "integration/worker/test_liveness.py": {
        "control.liveness_s": "test_a_task_that_takes_longer_than_the_limit_but_moves_is_left_alone",
    },
    "integration/worker/test_poison.py": {
        "control.poison_kills": "test_a_subject_that_kills_its_workers_is_buried_while_others_pass",
    },
    "unit/cli/test_init.py": {
        "suites.families": "test_a_model_of_ones_own_is_tested_on_ones_own_data_alone",
        "suites.files": "test_a_few_rows_are_trained_on_and_not_tested_on",
        "suites.probe_items": "test_on_a_gpu_the_suites_are_larger",
        "suites.eval_items": "test_on_a_gpu_the_suites_are_larger",
        "suites.confirm_items": "test_config_check_refuses_a_gate_that_cannot_see",
    },
    "unit/datagen/systems/test_curriculum_system.py": {
        "curriculum.exhausted_cap": "test_a_gap_in_what_was_generated_shifts_the_mix_and_lessons_do_not_hide_it",
        "curriculum.arms": "test_a_trial_is_the_paired_gain_over_a_stretch_of_one_arms_training",
    },
    "unit/datagen/systems/test_generation_system.py": {
        "queue.low_water": "test_with_the_trainer_stopped_the_queue_comes_to_rest_between_the_waters",
        "queue.low_minutes": "test_minutes_of_training_left_call_for_a_refill_too",
        "queue.high_water": "test_with_the_trainer_stopped_the_queue_comes_to_rest_between_the_waters",
        "queue.batch_examples": "test_a_refill_tells_what_it_made_and_how",
        "suites.seed": "test_a_batch_is_not_made_again_from_other_families_or_pools",
        "generation.sources": "test_a_source_that_makes_nothing_is_not_asked_without_end",
        "generation.cooldown_s": "test_a_cooldown_lies_between_two_batches",
        "generation.hourly_examples": "test_an_hours_budget_is_kept_and_the_queue_waits",
    },
    "unit/datagen/test_arms.py": {
        "curriculum.replay_share": "test_adaptive_seeks_the_level_whose_ground_is_laid",
    },
    "unit/datagen/test_experiment.py": {
        "curriculum.favoured": "test_before_anything_is_mastered_the_favoured_arm_has_all",
        "curriculum.exploration": "test_at_first_the_favoured_arm_leads_and_the_others_are_tried",
        "curriculum.even_points": "test_arms_that_do_not_differ_are_called_even",
    },
    "unit/deployer/systems/test_deployment_system.py": {
        "serving.max_loaded": "test_what_a_crash_left_loaded_does_not_crowd_out_the_next_challenger",
        "serving.watch_s": "test_a_watch_that_was_cut_off_is_held_again_and_deploys_once",
    },
    "unit/deployer/test_gate.py": {
        "gate.margin": "test_better_and_safe_is_promoted_with_its_numbers",
    },
    "unit/deployer/test_gate_rates.py": {
        "gate.flip_share": "test_five_points_at_fifteen_percent_flips_are_promoted_within_ten_challenges",
    },
    "unit/deployer/test_screen.py": {
        "gate.screen_alpha": "test_a_level_already_proved_worse_is_not_either",
    },
    "unit/evaluator/systems/test_testing_system.py": {
        "comparison.soup_of": "test_a_soup_is_made_once_beside_the_line_and_judged_like_any_other",
    },
    "unit/evaluator/test_comparison.py": {
        "comparison.max_size_bytes": "test_cost_is_a_budget_and_no_score",
        "comparison.min_tokens_per_s": "test_cost_is_a_budget_and_no_score",
    },
    "unit/evaluator/test_loss_check.py": {
        "regression.loss_rise": "test_one_item_gone_wild_proves_nothing",
    },
    "unit/evaluator/test_regression.py": {
        "regression.critical_drop": "test_a_small_but_proved_drop_is_a_warning",
    },
    "unit/inference/test_dress.py": {
        "monitoring.system_prompt_base": "test_what_is_configured_is_what_is_put_before_the_model",
    },
    "unit/inference/test_http.py": {
        "inference.timeout_s": "test_a_server_that_never_answers_is_of_the_surroundings",
        "inference.attempts": "test_a_lasting_trouble_is_of_the_surroundings",
        "inference.concurrency": "test_answers_come_in_the_order_asked_from_bounded_requests",
        "inference.api_key": "test_it_asks_in_the_openai_shape_and_reads_the_answer",
    },
    "unit/inference/test_local.py": {
        "inference.batch_timeout_s": "test_a_batch_out_of_time_is_an_error_and_no_answer",
    },
    "unit/leases/test_leases.py": {
        "placement.vram_gb": "test_a_job_goes_to_the_fullest_gpu_with_room",
    },
    "unit/metrics/test_patience.py": {
        "metrics.cache_s": "test_a_reading_serves_the_next_scrapes",
    },
    "unit/metrics/test_serve.py": {
        "placement.machine": "test_prometheus_is_told_an_address_that_it_can_reach",
        "metrics.port": "test_prometheus_is_told_an_address_that_it_can_reach",
        "metrics.address": "test_prometheus_is_told_an_address_that_it_can_reach",
    },
    "unit/miner/systems/test_correction_system.py": {
        "queue.correction_share": "test_mistakes_become_a_queued_batch_of_verified_lessons_among_ordinary_rows",
        "queue.inbox": "test_a_file_of_bytes_that_are_no_text_ends_nothing",
    },
    "unit/miner/test_children.py": {
        "mining.round_items": "test_fresh_weak_items_are_found_within_the_budget_and_off_the_pools",
    },
    "unit/run/test_locking.py": {
        "model.tokenizer_path": "test_a_tokenizer_with_more_tokens_than_the_model_is_refused",
        "locked.base_model": "test_a_model_has_a_name_and_a_context_of_its_own",
        "locked.model_architecture": "test_a_model_has_a_name_and_a_context_of_its_own",
        "locked.max_context_length": "test_a_model_has_a_name_and_a_context_of_its_own",
        "locked.vocab_size": "test_the_first_run_refuses_another_model_than_is_meant",
    },
    "unit/serving/test_admin_token.py": {
        "serving.admin_token": "test_a_configured_token_is_taken",
        "serving.admin_token_file": "test_a_token_file_is_read",
    },
    "unit/serving/test_app.py": {
        "serving.max_body_bytes": "test_bodies_are_bounded",
        "serving.request_timeout_s": "test_a_request_that_takes_too_long_is_given_up",
    },
    "unit/serving/test_batcher.py": {
        "serving.max_queue": "test_a_full_queue_asks_to_come_again",
    },
    "unit/settings/test_stores.py": {
        "ledger.url": "test_a_password_from_a_file_is_put_into_the_url",
        "ledger.password_file": "test_a_password_from_a_file_is_put_into_the_url",
        "artifacts.url": "test_an_s3_store_is_opened_with_its_server_and_keys",
        "artifacts.endpoint": "test_an_s3_store_is_opened_with_its_server_and_keys",
        "artifacts.access_key": "test_an_s3_store_is_opened_with_its_server_and_keys",
        "artifacts.secret_key_file": "test_an_s3_store_is_opened_with_its_server_and_keys",
        "redis.url": "test_a_password_from_a_file_is_put_into_the_url",
        "redis.password_file": "test_a_password_from_a_file_is_put_into_the_url",
    },
    "unit/systems/test_controller.py": {
        "control.lease_s": "test_while_it_works_its_claim_is_renewed",
        "control.poison_failures": "test_a_failure_is_counted_and_the_others_go_on",
    },
    "unit/trainer/previews/test_previews.py": {
        "monitoring.preview_backend": "test_previews_do_not_change_what_is_trained",
        "monitoring.preview_timeout_s": "test_a_server_that_hangs_is_asked_once_and_training_ends_well",
        "monitoring.preview_url": "test_a_remote_backend_without_an_address_is_a_wrong_setting",
    },
    "unit/trainer/systems/test_adapters.py": {
        "retention.checkpoints_gb": "test_retention_keeps_what_adapters_stand_on",
    },
    "unit/trainer/systems/test_training_system.py": {
        "hyperparams.num_epochs": "test_every_epoch_is_trained_and_the_depth_never_goes_below_nothing",
        "hyperparams.max_steps": "test_at_max_steps_training_waits_without_a_failure",
        "hyperparams.save_steps": "test_at_max_steps_training_waits_without_a_failure",
        "data.shuffle": "test_order_and_seed_of_the_settings_reach_the_segment",
        "data.seed": "test_order_and_seed_of_the_settings_reach_the_segment",
        "queue.unjudged_limit": "test_with_the_judges_away_training_goes_to_its_limit_and_waits",
    },
    "unit/trainer/test_adapters.py": {
        "model.lora_rank": "test_a_state_of_other_adapters_or_none_is_refused",
        "model.lora_dropout": "test_only_adapters_are_kept_in_the_state",
        "model.lora_targets": "test_layers_that_the_model_lacks_are_a_wrong_setting",
        "model.load_in_4bit": "test_four_bits_need_adapters_and_a_gpu",
        "environment.device": "test_four_bits_need_adapters_and_a_gpu",
    },
    "unit/trainer/test_cli.py": {
        "hyperparams.batch_size": "batch_size",
        "hyperparams.max_length": "max_length",
        "monitoring.status_interval_s": "test_sigterm_stops_and_saves_and_the_run_goes_on",
        "data.dataset_path": "test_the_prior_systems_file_is_read_from_the_folder",
        "output.output_dir": "test_a_file_is_read_and_flags_go_before_environment_before_file",
        "hyperparams.learning_rate": "learning_rate",
    },
    "unit/trainer/test_engine.py": {
        "model.path": "test_a_failure_is_a_value_with_its_kind",
        "hyperparams.gradient_accumulation": "test_accumulation_takes_the_same_step_as_one_large_batch",
        "profile.name": "test_a_failure_is_a_value_with_its_kind",
        "output.resume_from": "test_a_failure_is_a_value_with_its_kind",
    },
    "unit/trainer/test_guard.py": {
        "monitoring.logging_steps": "test_divergence_after_the_last_report_is_seen_before_anything_is_saved",
    },
    "unit/trainer/test_processes.py": {
        "hyperparams.segment_max_steps": "test_two_processes_take_the_steps_of_one_and_go_on_from_its_state",
    },
    "unit/trainer/test_resume.py": {
        "hyperparams.segment_max_s": "test_a_segment_ends_when_its_time_is_up",
    },
    "unit/trainer/test_schedule.py": {
        "hyperparams.warmup_steps": "test_warm_up_counts_from_the_fresh_optimizer_only",
    },
    "unit/trainer/test_trackers.py": {
        "environment.report_to": "test_a_tracker_hears_the_loss",
    },
    "unit/trainer/test_optimizer.py": {
        "hyperparams.weight_decay": "test_every_number_of_adamw_is_a_setting",
        "hyperparams.betas": "test_every_number_of_adamw_is_a_setting",
        "hyperparams.epsilon": "test_every_number_of_adamw_is_a_setting",
        "hyperparams.schedule": "test_a_schedule_ends_at_its_floor",
        "hyperparams.schedule_floor": "test_a_schedule_ends_at_its_floor",
    },
    "unit/cli/test_budget.py": {"model.gradient_checkpointing": "test_every_way_out_takes_less"},
}
"""By the file of tests: fields, and the test that names each and shows what it changes."""


def fields() -> list[str]:
    """Every field of the loop's settings and of a run's configuration, sections left out."""
    both = [*names(Settings), *(name for name in names(TrainerConfig) if name.startswith(("data.", "output.")))]
    return sorted({name for name in both if "." in name})


@cache
def readers() -> dict[str, set[str]]:
    """Attributes read, and the modules that read them; of the settings package only what its properties derive."""
    found: dict[str, set[str]] = {}
    for folder in (ROOT / "shared", ROOT / "services"):
        for file in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
                if isinstance(node, ast.Attribute) and (SETTINGS not in file.parents or own):
                    found.setdefault(node.attr, set()).add(str(file.relative_to(ROOT)))
    return found


@cache
def sources_of(path: Path) -> dict[str, str]:
    """The functions of a file by name, each with its source and decorators."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("name", fields())
def test_a_field_is_read_by_code_that_acts_on_it(name: str) -> None:
    field = name.rpartition(".")[2]
    by_name = f'"{field}"'
    assert readers().get(field) or any(
        by_name in file.read_text(encoding="utf-8") for file in (ROOT / "services" / "trainer").rglob("*.py")
    ), f"nothing reads {name}: let it change something, or take it out"


@pytest.mark.parametrize(
    ("name", "path", "test"), [(name, path, test) for path, rows in SHOWN.items() for name, test in rows.items()]
)
def test_the_test_that_shows_a_field_names_it(name: str, path: str, test: str) -> None:
    assert name in fields(), f"there is no setting {name} any more: take its row out"
    assert name.rpartition(".")[2] in sources_of(ROOT / "tests" / path)[test]
