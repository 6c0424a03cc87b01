"""What tests of the library show, and of the whole."""

from __future__ import annotations

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "integration/worker/test_flower.py": {
        "test_a_wake_up_is_visible_as_a_celery_task": ("control.task_events",),
    },
    "integration/worker/test_liveness.py": {
        "test_a_task_without_progress_ends_its_worker_and_is_retried": ("control.liveness_s",),
    },
    "unit/artifacts/test_artifact_store.py": {
        "test_the_cache_size_of_a_remote_store_follows_the_setting": ("artifacts.cache_gb",),
    },
    "unit/user_tasks/test_general.py": {
        "test_the_prompts_follow_the_setting": ("suites.general_prompts",),
    },
    "unit/evaluation/test_build_suites.py": {
        "test_each_pool_has_its_own_size": ("suites.confirm_items", "suites.eval_items", "suites.probe_items"),
        "test_the_tested_families_follow_the_setting": ("suites.families",),
        "test_the_pools_take_at_most_the_held_out_share_of_a_finite_level": ("suites.held_out_share",),
        "test_another_seed_holds_out_other_items": ("suites.seed",),
    },
    "unit/inference/test_prompt_format.py": {
        "test_prompts_follow_the_configured_profile_and_system_prompt": (
            "monitoring.system_prompt_base",
            "profile.name",
        ),
        "test_a_profile_gets_its_configured_options": ("profile.options",),
        "test_the_templates_variables_follow_the_setting": ("profile.template_variables",),
    },
    "unit/inference/test_http_generator.py": {
        "test_it_asks_in_the_openai_shape_and_reads_the_answer": ("inference.api_key",),
        "test_the_number_of_requests_in_flight_follows_the_setting": ("inference.concurrency",),
        "test_a_server_that_never_answers_is_a_transient_error": ("inference.timeout_s",),
    },
    "unit/inference/test_model_loading.py": {
        "test_device_dtype_and_attention_follow_the_settings": (
            "inference.attention",
            "inference.device",
            "inference.dtype",
        ),
    },
    "unit/evaluation/test_vllm_suites.py": {
        "test_suites_are_answered_by_a_vllm_that_is_started_for_them": ("inference.engine", "inference.vllm_command"),
    },
    "unit/inference/test_local_generator.py": {
        "test_how_much_is_answered_at_once_is_limited": ("inference.batch_size",),
    },
    "unit/leases/test_gpus.py": {
        "test_gpu_leases_follow_the_settings": ("placement.gpus_gb", "placement.vram_gb"),
        "test_training_has_a_process_for_each_card_with_room_for_it": ("environment.processes",),
    },
    "unit/ledger/test_queue.py": {
        "test_the_low_mark_follows_the_setting_and_is_for_families": ("queue.low_water",),
    },
    "unit/metrics/test_ledger.py": {
        "test_the_last_drill_is_exported_with_the_age_at_which_another_is_due": ("serving.drill_days",),
    },
    "unit/metrics/test_targets.py": {
        "test_a_worker_registers_the_exporters_of_its_machine": ("metrics.exporters",),
    },
    "unit/metrics/test_worker.py": {
        "test_the_registered_address_is_reachable_for_prometheus": (
            "metrics.address",
            "metrics.host",
            "placement.machine",
        ),
        "test_the_first_metrics_port_follows_the_setting": ("metrics.port",),
    },
    "unit/run/test_base_model.py": {
        "test_a_template_of_the_settings_goes_into_the_base_model": ("model.chat_template",),
        "test_the_tokenizer_path_follows_the_setting": ("model.tokenizer_path",),
    },
    "unit/run/test_locked_settings.py": {
        "test_a_model_has_a_name_and_a_context_of_its_own": ("locked.base_model", "locked.max_context_length"),
        "test_the_first_run_refuses_a_model_that_differs_from_the_locked_settings": (
            "locked.model_architecture",
            "locked.vocab_size",
        ),
    },
    "unit/run/test_local_stack.py": {
        "test_a_machine_runs_the_systems_of_its_roles": ("placement.roles",),
        "test_the_threads_of_a_model_follow_the_setting": ("placement.threads",),
        "test_the_port_of_the_embedded_redis_follows_the_setting": ("redis.port",),
    },
    "unit/serving/test_server_home.py": {
        "test_a_token_file_is_read": ("serving.admin_token_file",),
    },
    "integration/serving/test_clients.py": {
        "test_a_disconnected_client_leaves_the_batch_and_an_unfinished_answer_gets_a_503_at_shutdown": (
            "serving.drain_s",
        ),
    },
    "unit/serving/test_app.py": {
        "test_a_request_past_its_time_limit_is_abandoned": ("serving.request_timeout_s",),
    },
    "unit/serving/test_chat_api.py": {
        "test_requests_have_limits": ("serving.max_new_tokens",),
    },
    "unit/serving/test_client.py": {
        "test_the_server_address_follows_the_setting": ("serving.url",),
    },
    "unit/serving/test_engine.py": {
        "test_the_engine_follows_the_setting": ("serving.engine",),
    },
    "unit/serving/test_model_manager.py": {
        "test_the_stable_model_name_follows_the_setting": ("serving.alias",),
        "test_batching_follows_the_settings": ("serving.max_batch", "serving.max_queue"),
        "test_the_number_of_loaded_checkpoints_is_limited": ("serving.max_loaded",),
    },
    "unit/serving/test_origins.py": {
        "test_the_pages_that_may_call_follow_the_setting": ("serving.allowed_origins",),
        "test_the_names_that_are_served_follow_the_settings": ("serving.allowed_hosts",),
    },
    "unit/serving/test_server.py": {
        "test_the_host_follows_the_setting": ("serving.host",),
        "test_the_port_follows_the_setting": ("serving.port",),
    },
    "unit/serving/test_vllm_engine.py": {
        "test_the_command_is_the_configured_one_with_its_placeholders_filled_in": ("serving.vllm_command",),
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
    "unit/stats/test_power.py": {
        "test_every_assumption_of_the_plan_counts": (
            "gate.discordant_share",
            "gate.gain",
        ),
    },
    "unit/systems/test_controller.py": {
        "test_the_renewal_interval_follows_the_setting": ("control.lease_s",),
    },
    "unit/systems/test_dead_letters.py": {
        "test_the_longest_retry_pause_follows_the_setting": ("control.max_backoff_s",),
        "test_the_failure_limit_follows_the_setting": ("control.max_failures",),
        "test_the_death_limit_follows_the_setting": ("control.max_kills",),
    },
    "unit/worker/test_stopping.py": {
        "test_the_grace_period_follows_the_setting": ("control.grace_s",),
    },
    "unit/worker/test_liveness.py": {
        "test_the_liveness_file_follows_the_setting": ("control.alive_file",),
    },
    "unit/worker/test_wakeups.py": {
        "test_sweep_and_timer_intervals_follow_the_settings": ("control.sweep_factor", "control.timer_s"),
    },
    "unit/web/test_web_settings.py": {
        "test_the_page_answers_to_the_allowed_hosts": ("web.allowed_hosts",),
        "test_a_host_that_others_reach_needs_a_password_file": ("web.host", "web.password_file"),
        "test_the_port_follows_the_setting_unless_it_is_taken": ("web.port",),
        "test_a_page_that_is_read_only_shows_no_action": ("web.read_only",),
        "test_links_lead_to_other_pages": ("web.links",),
        "test_alerts_of_the_prometheus_url_are_shown": ("web.prometheus_url",),
    },
}
