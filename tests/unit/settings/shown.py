"""By the file of tests, below tests/: the test that changes a setting and sees what changes; its settings."""

from __future__ import annotations

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "integration/serving/test_vllm.py": {
        "test_a_checkpoint_with_adapters_beside_its_merged_weights_is_served_as_either": ("serving.vllm_adapter_base",),
    },
    "integration/worker/test_flower.py": {
        "test_a_look_that_an_event_started_is_seen_as_a_task": ("control.task_events",),
    },
    "integration/worker/test_liveness.py": {
        "test_a_silent_task_ends_its_worker_and_is_tried_again": ("control.liveness_s",),
    },
    "unit/artifacts/test_configured.py": {
        "test_how_large_the_cache_of_a_remote_store_grows_is_set": ("artifacts.cache_gb",),
    },
    "unit/bus/test_outbox.py": {
        "test_the_length_of_a_stream_is_set": ("redis.stream_length",),
    },
    "unit/datagen/systems/test_generation_system.py": {
        "test_a_cooldown_lies_between_two_batches": ("generation.cooldown_s",),
        "test_an_hours_budget_is_kept_and_the_queue_waits": ("generation.hourly_examples",),
        "test_a_source_that_makes_nothing_is_not_asked_without_end": ("generation.sources",),
        "test_in_how_many_processes_examples_are_made_is_set": ("generation.workers", "queue.batch_examples"),
        "test_how_often_an_item_may_be_in_a_batch_is_set": ("queue.epoch_cap",),
        "test_above_which_depth_nothing_is_made_is_set": ("queue.high_water",),
    },
    "unit/datagen/test_arms.py": {
        "test_how_strongly_a_gap_draws_is_set": ("curriculum.coverage_shift",),
        "test_what_an_exhausted_level_gets_is_set": ("curriculum.exhausted_cap",),
        "test_progressive_takes_its_shares_from_the_settings": (
            "curriculum.frontier_share",
            "curriculum.lookahead_share",
        ),
        "test_when_a_level_is_mastered_is_set": (
            "curriculum.hysteresis",
            "curriculum.mastery",
            "curriculum.mastery_items",
        ),
        "test_adaptive_takes_the_share_of_its_replay_from_the_settings": ("curriculum.replay_share",),
    },
    "unit/datagen/test_experiment.py": {
        "test_how_the_shares_begin_is_set": ("curriculum.advantage", "curriculum.exploration", "curriculum.favoured"),
        "test_one_arm_is_no_experiment": ("curriculum.arms",),
        "test_what_ends_the_experiment_is_set": ("curriculum.certainty", "curriculum.trials_each"),
        "test_from_which_difference_on_arms_differ_is_set": ("curriculum.even_points",),
        "test_how_fast_a_trial_is_forgotten_is_set": ("curriculum.half_life",),
        "test_how_long_the_expectation_before_any_trial_counts_is_set": ("curriculum.prior_trials",),
    },
    "unit/datagen/systems/test_forks.py": {
        "test_after_how_many_batches_a_fork_opens_is_set": ("curriculum.fork_every",),
        "test_when_a_fork_is_given_up_is_set": ("curriculum.fork_limit_s",),
    },
    "unit/deployer/systems/test_rollout.py": {
        "test_on_how_many_items_a_checkpoint_is_checked_before_the_switch_is_set": ("serving.canary_items",),
        "test_how_long_a_deployment_is_watched_is_set": ("serving.watch_s",),
    },
    "unit/deployer/test_canary.py": {
        "test_the_coarser_dtype_sets_the_tolerance_unless_it_is_set": ("serving.logprob_epsilon",),
    },
    "unit/deployer/test_challenge.py": {
        "test_what_counts_as_mastered_is_set": ("gate.mastery", "gate.mastery_items"),
        "test_after_how_many_uses_the_confirm_suite_is_rotated_is_set": ("suites.confirm_uses",),
    },
    "unit/deployer/test_gate.py": {
        "test_how_much_proof_is_asked_for_is_set": ("gate.alpha", "gate.harm_alpha", "gate.margin"),
        "test_the_full_test_of_a_family_needs_more_items_by_the_plan": ("gate.power", "gate.protected_flip_share"),
        "test_the_level_at_which_a_family_is_proved_safe_is_set": ("gate.safety_alpha",),
    },
    "unit/deployer/test_screen.py": {
        "test_how_promising_a_checkpoint_must_be_is_set": ("gate.screen_alpha",),
    },
    "unit/deployer/test_watch.py": {
        "test_the_limits_are_set": ("serving.max_error_rate", "serving.max_latency_ratio"),
    },
    "unit/evaluation/test_standing.py": {
        "test_each_pool_has_a_size_of_its_own": ("suites.confirm_items", "suites.eval_items", "suites.probe_items"),
        "test_what_is_tested_is_set": ("suites.families",),
        "test_rows_of_the_files_that_are_set_are_tested_on": ("suites.files",),
        "test_the_pools_take_at_most_the_share_of_a_finite_level_that_is_set": ("suites.held_out_share",),
        "test_another_seed_holds_out_other_items": ("suites.seed",),
    },
    "unit/evaluator/systems/test_testing_system.py": {
        "test_a_soup_is_made_once_beside_the_line_and_judged_like_any_other": ("comparison.soup_of",),
        "test_how_long_an_answer_may_be_is_set": ("suites.max_new_tokens",),
    },
    "unit/evaluator/test_calibration.py": {
        "test_a_higher_promise_is_kept_by_abstaining_more": ("calibration.precision",),
    },
    "unit/evaluator/test_comparison.py": {
        "test_cost_is_a_budget_and_no_score": ("comparison.max_size_bytes", "comparison.min_tokens_per_s"),
    },
    "unit/evaluator/test_loss_check.py": {
        "test_which_levels_count_as_learnt_is_set": ("regression.loss_mastery",),
        "test_how_far_the_loss_may_rise_is_set": ("regression.loss_rise",),
    },
    "unit/evaluator/test_regression.py": {
        "test_how_surely_a_drop_must_be_proved_is_set": ("regression.alpha",),
        "test_which_drop_is_critical_is_set": ("regression.critical_drop",),
        "test_the_smallest_visible_drop_is_stated_for_a_chance_that_is_set": ("regression.power",),
    },
    "unit/inference/test_dress.py": {
        "test_what_is_configured_is_what_is_put_before_the_model": ("monitoring.system_prompt_base", "profile.name"),
        "test_a_profile_has_the_options_that_are_set": ("profile.options",),
    },
    "unit/inference/test_http.py": {
        "test_it_asks_in_the_openai_shape_and_reads_the_answer": ("inference.api_key",),
        "test_a_lasting_trouble_is_of_the_surroundings": ("inference.attempts",),
        "test_pauses_begin_as_set_and_double": ("inference.backoff_s",),
        "test_how_many_requests_are_in_flight_is_set": ("inference.concurrency",),
        "test_a_server_that_never_answers_is_of_the_surroundings": ("inference.timeout_s",),
    },
    "unit/inference/test_loading.py": {
        "test_what_a_model_runs_on_is_set": ("inference.attention", "inference.device", "inference.dtype"),
    },
    "unit/inference/test_local.py": {
        "test_how_much_is_answered_at_once_is_set": ("inference.batch_size", "inference.batch_tokens"),
        "test_a_batch_out_of_time_is_an_error_and_no_answer": ("inference.batch_timeout_s",),
        "test_how_many_logits_are_held_at_once_is_set": ("inference.score_logits",),
    },
    "unit/leases/test_share.py": {
        "test_settings_say_how_much_and_where": ("placement.gpus_gb", "placement.vram_gb"),
    },
    "unit/ledger/test_supply.py": {
        "test_every_mark_is_set": ("queue.hysteresis", "queue.low_minutes", "queue.low_tokens", "queue.low_water"),
    },
    "unit/metrics/test_discover.py": {
        "test_how_long_a_reading_of_the_ledger_serves_is_set": ("metrics.cache_s",),
    },
    "unit/metrics/test_targets.py": {
        "test_a_worker_tells_of_the_pages_beside_its_own": ("metrics.exporters",),
    },
    "unit/metrics/test_serve.py": {
        "test_prometheus_is_told_an_address_that_it_can_reach": (
            "metrics.address",
            "metrics.host",
            "placement.machine",
        ),
        "test_the_first_port_to_try_is_set": ("metrics.port",),
    },
    "unit/miner/systems/test_correction_system.py": {
        "test_which_folder_is_the_inbox_is_set": ("queue.inbox",),
    },
    "unit/miner/systems/test_diversity_system.py": {
        "test_what_is_near_and_how_far_back_is_looked_are_set": ("diversity.history_examples", "diversity.near"),
        "test_coverage_in_a_space_of_embeddings_is_measured_where_a_server_is_set": (
            "diversity.embeddings_model",
            "diversity.embeddings_url",
        ),
        "test_how_many_rows_are_embedded_is_set": ("diversity.embeddings_rows",),
    },
    "unit/miner/systems/test_lessons.py": {
        "test_at_how_many_checkpoints_the_effect_is_measured_is_set": ("correction.impact_evaluations",),
        "test_how_much_of_a_batch_one_class_may_have_is_set": ("correction.class_share",),
        "test_what_a_correction_batch_is_made_of_is_set": (
            "correction.judged_share",
            "queue.correction_examples",
            "queue.correction_share",
        ),
        "test_a_class_that_batch_after_batch_did_not_help_gets_no_more_lessons_for_a_while": (
            "correction.patience",
            "correction.pause",
        ),
        "test_how_answers_are_sampled_is_set": (
            "correction.sampled_lessons",
            "correction.samples",
            "correction.temperature",
        ),
        "test_how_many_lessons_one_item_gives_is_set": ("queue.correction_relatives",),
        "test_how_many_batches_lie_between_corrections_is_set": ("queue.correction_spacing",),
    },
    "unit/miner/systems/test_mining_system.py": {
        "test_which_levels_are_searched_is_set": ("mining.frontier_high", "mining.frontier_low", "mining.search_items"),
        "test_how_much_of_the_set_before_is_known_and_asked_again_is_set": ("mining.remembered", "mining.retest_items"),
        "test_the_search_has_its_budget_and_its_rounds_from_the_settings": ("mining.round_items",),
        "test_what_counts_as_sure_is_set": ("mining.sure",),
        "test_from_which_probability_on_a_right_answer_is_no_weakness_is_set": ("mining.unsure",),
        "test_how_many_weak_items_are_handed_on_is_set": ("queue.mined_items",),
    },
    "unit/run/test_base_model.py": {
        "test_the_tokenizer_is_taken_from_where_it_is_set": ("model.tokenizer_path",),
    },
    "unit/run/test_locking.py": {
        "test_a_model_has_a_name_and_a_context_of_its_own": ("locked.base_model", "locked.max_context_length"),
        "test_the_first_run_refuses_another_model_than_is_meant": ("locked.model_architecture", "locked.vocab_size"),
    },
    "unit/run/test_parts.py": {
        "test_a_machine_runs_the_systems_of_its_roles": ("placement.roles",),
        "test_how_many_threads_a_model_uses_is_set": ("placement.threads",),
        "test_the_embedded_redis_takes_the_port_that_is_set": ("redis.port",),
    },
    "unit/serving/test_admin_token.py": {
        "test_a_configured_token_is_taken": ("serving.admin_token",),
        "test_a_token_file_is_read": ("serving.admin_token_file",),
    },
    "unit/serving/test_app.py": {
        "test_bodies_are_bounded": ("serving.max_body_bytes",),
        "test_a_request_that_takes_too_long_is_given_up": ("serving.request_timeout_s",),
    },
    "unit/serving/test_chat_request.py": {
        "test_the_length_of_an_answer_that_no_one_limits_is_set": ("serving.default_new_tokens",),
        "test_what_a_client_may_ask_for_is_set": ("serving.max_messages", "serving.max_new_tokens"),
    },
    "unit/serving/test_client.py": {
        "test_a_server_that_does_not_answer_in_the_time_that_is_set_is_away": ("serving.admin_timeout_s",),
        "test_where_the_server_is_asked_is_set": ("serving.url",),
    },
    "unit/serving/test_engine.py": {
        "test_what_computes_behind_the_server_is_set": ("serving.engine",),
    },
    "unit/serving/test_fleet.py": {
        "test_the_name_that_clients_ask_for_is_set": ("serving.alias",),
        "test_how_requests_are_batched_is_set": ("serving.batch_wait_s", "serving.max_batch", "serving.max_queue"),
        "test_memory_holds_a_stated_number": ("serving.max_loaded",),
    },
    "unit/serving/test_server.py": {
        "test_the_host_that_is_set_is_bound": ("serving.host",),
        "test_the_port_that_is_set_is_bound": ("serving.port",),
    },
    "unit/serving/test_vllm_settings.py": {
        "test_the_base_of_adapters_gets_the_options_that_are_set": ("serving.vllm_adapter_options",),
        "test_the_command_is_the_one_that_is_set_with_its_places_filled_in": ("serving.vllm_command",),
        "test_how_long_vllm_may_take_to_start_is_set": ("serving.vllm_start_s",),
        "test_servers_that_run_already_are_asked_where_they_are_set": ("serving.vllm_urls",),
    },
    "unit/settings/test_stores.py": {
        "test_an_s3_store_is_opened_with_its_server_and_keys": (
            "artifacts.access_key",
            "artifacts.endpoint",
            "artifacts.secret_key_file",
            "artifacts.url",
        ),
        "test_a_password_from_a_file_is_put_into_the_url": (
            "ledger.password_file",
            "ledger.url",
            "redis.password_file",
            "redis.url",
        ),
    },
    "unit/stats/test_gate_power.py": {
        "test_every_assumption_of_the_plan_counts": (
            "gate.challenge_correlation",
            "gate.challenges",
            "gate.flip_share",
            "gate.gain",
        ),
    },
    "unit/systems/test_controller.py": {
        "test_how_often_a_claim_is_renewed_is_set": ("control.heartbeat_s", "control.lease_s"),
    },
    "unit/systems/test_poison.py": {
        "test_how_long_a_failed_subject_rests_is_set": ("control.backoff_first_s", "control.backoff_last_s"),
        "test_after_how_many_failures_a_subject_is_given_up_is_set": ("control.poison_failures",),
        "test_after_how_many_deaths_a_subject_is_given_up_is_set": ("control.poison_kills",),
    },
    "unit/trainer/previews/test_backends.py": {
        "test_which_backend_answers_and_how_it_is_asked_is_set": (
            "monitoring.preview_api_key",
            "monitoring.preview_backend",
            "monitoring.preview_model",
            "monitoring.preview_url",
        ),
        "test_how_long_a_preview_may_take_is_set": ("monitoring.preview_timeout_s",),
    },
    "unit/trainer/previews/test_previews.py": {
        "test_when_and_how_previews_are_asked_is_set": (
            "monitoring.preview_interval",
            "monitoring.preview_max_tokens",
            "monitoring.preview_temperature",
        ),
        "test_how_many_questions_a_preview_has_is_set": ("monitoring.preview_samples",),
    },
    "unit/trainer/systems/test_cleaning.py": {
        "test_what_is_kept_is_set": ("retention.checkpoints_gb", "retention.states"),
    },
    "unit/trainer/systems/test_training_system.py": {
        "test_with_the_judges_away_training_goes_to_its_limit_and_waits": ("queue.unjudged_limit",),
    },
    "unit/trainer/test_adapters.py": {
        "test_four_bits_need_adapters_and_a_library": ("model.load_in_4bit",),
        "test_how_adapters_are_shaped_is_set": ("model.lora_alpha", "model.lora_dropout", "model.lora_rank"),
        "test_layers_that_the_model_lacks_are_a_wrong_setting": ("model.lora_targets",),
    },
    "unit/trainer/test_engine.py": {
        "test_a_failure_is_a_value_with_its_kind": ("data.dataset_path", "model.path", "output.resume_from"),
        "test_to_which_norm_gradients_are_clipped_is_set": ("hyperparams.max_grad_norm",),
        "test_rows_longer_than_the_limit_are_left_out_and_named": ("hyperparams.max_length",),
        "test_activations_are_computed_again_where_that_is_set": ("model.gradient_checkpointing",),
        "test_where_a_run_writes_and_what_it_tells_is_set": ("monitoring.logging_steps", "output.output_dir"),
    },
    "unit/trainer/test_hardware.py": {
        "test_a_gpu_that_is_not_there_is_a_wrong_setting": ("environment.device",),
        "test_the_precision_of_the_saved_weights_is_set": ("hyperparams.fp_precision",),
        "test_the_attention_kernel_is_set": ("model.attention",),
    },
    "unit/trainer/test_optimizer.py": {
        "test_every_number_of_adamw_is_a_setting": (
            "hyperparams.betas",
            "hyperparams.epsilon",
            "hyperparams.learning_rate",
            "hyperparams.weight_decay",
        ),
    },
    "unit/trainer/test_plan.py": {
        "test_where_the_file_and_the_steps_begin_is_set": ("data.offset", "output.first_step"),
        "test_how_many_tokens_are_trained_on_is_set": ("data.max_tokens",),
        "test_the_order_of_rows_is_set": ("data.seed", "data.shuffle"),
        "test_how_many_steps_there_are_is_set": (
            "hyperparams.batch_size",
            "hyperparams.gradient_accumulation",
            "hyperparams.max_steps",
            "hyperparams.num_epochs",
            "hyperparams.save_steps",
            "hyperparams.segment_max_steps",
        ),
        "test_over_how_many_steps_rows_are_sorted_by_length_is_set": ("hyperparams.length_window",),
        "test_how_the_learning_rate_goes_is_set": (
            "hyperparams.schedule",
            "hyperparams.schedule_floor",
            "hyperparams.warmup_steps",
        ),
    },
    "unit/trainer/test_resume.py": {
        "test_a_segment_ends_when_its_time_is_up": ("hyperparams.segment_max_s",),
    },
    "unit/trainer/test_status_fields.py": {
        "test_how_often_progress_is_told_is_set": ("monitoring.status_interval_s",),
    },
    "unit/trainer/test_sharding.py": {
        "test_a_model_is_shared_where_that_is_set_and_there_is_somebody_to_share_it_with": ("environment.parallelism",),
        "test_whether_gathered_weights_are_given_back_after_the_forward_pass_is_set": ("environment.fsdp_reshard",),
    },
    "unit/trainer/test_trackers.py": {
        "test_a_tracker_hears_the_loss": ("environment.report_to",),
    },
    "unit/worker/test_stopping.py": {
        "test_how_long_work_may_take_to_give_way_is_set": ("control.grace_s",),
    },
    "unit/worker/test_sweep.py": {
        "test_the_file_that_shows_life_is_set": ("control.alive_file",),
        "test_how_often_a_worker_looks_and_tidies_is_set": ("control.sweep_factor", "control.timer_s"),
    },
}
