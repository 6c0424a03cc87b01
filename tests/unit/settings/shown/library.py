"""What tests of the library show, and of the whole."""

from __future__ import annotations

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "integration/worker/test_flower.py": {
        "test_a_wake_is_seen_as_a_task": ("control.task_events",),
    },
    "integration/worker/test_liveness.py": {
        "test_a_silent_task_ends_its_worker_and_is_tried_again": ("control.liveness_s",),
    },
    "unit/artifacts/test_artifact_store.py": {
        "test_how_large_the_cache_of_a_remote_store_grows_is_set": ("artifacts.cache_gb",),
    },
    "unit/evaluation/test_build_suites.py": {
        "test_each_pool_has_a_size_of_its_own": ("suites.confirm_items", "suites.eval_items", "suites.probe_items"),
        "test_what_is_tested_is_set": ("suites.families",),
        "test_rows_of_the_files_that_are_set_are_tested_on": ("suites.files",),
        "test_the_pools_take_at_most_the_share_of_a_finite_level_that_is_set": ("suites.held_out_share",),
        "test_another_seed_holds_out_other_items": ("suites.seed",),
    },
    "unit/inference/test_prompt_format.py": {
        "test_what_is_configured_is_what_is_put_before_the_model": ("monitoring.system_prompt_base", "profile.name"),
        "test_a_profile_has_the_options_that_are_set": ("profile.options",),
    },
    "unit/inference/test_http_generator.py": {
        "test_it_asks_in_the_openai_shape_and_reads_the_answer": ("inference.api_key",),
        "test_how_many_requests_are_in_flight_is_set": ("inference.concurrency",),
        "test_a_server_that_never_answers_is_a_transient_error": ("inference.timeout_s",),
    },
    "unit/inference/test_model_loading.py": {
        "test_what_a_model_runs_on_is_set": ("inference.attention", "inference.device", "inference.dtype"),
    },
    "unit/inference/test_local_generator.py": {
        "test_how_much_is_answered_at_once_is_limited": ("inference.batch_size",),
    },
    "unit/leases/test_gpus.py": {
        "test_settings_say_how_much_and_where": ("placement.gpus_gb", "placement.vram_gb"),
        "test_training_has_a_process_for_each_card_with_room_for_it": ("environment.processes",),
    },
    "unit/ledger/test_queue.py": {
        "test_the_low_mark_is_set": ("queue.low_water",),
    },
    "unit/metrics/test_targets.py": {
        "test_a_worker_tells_of_the_pages_beside_its_own": ("metrics.exporters",),
    },
    "unit/metrics/test_worker.py": {
        "test_prometheus_is_told_an_address_that_it_can_reach": (
            "metrics.address",
            "metrics.host",
            "placement.machine",
        ),
        "test_the_first_port_to_try_is_set": ("metrics.port",),
    },
    "unit/run/test_base_model.py": {
        "test_the_tokenizer_is_taken_from_where_it_is_set": ("model.tokenizer_path",),
    },
    "unit/run/test_locked_settings.py": {
        "test_a_model_has_a_name_and_a_context_of_its_own": ("locked.base_model", "locked.max_context_length"),
        "test_the_first_run_refuses_another_model_than_is_meant": ("locked.model_architecture", "locked.vocab_size"),
    },
    "unit/run/test_local_stack.py": {
        "test_a_machine_runs_the_systems_of_its_roles": ("placement.roles",),
        "test_how_many_threads_a_model_uses_is_set": ("placement.threads",),
        "test_the_embedded_redis_takes_the_port_that_is_set": ("redis.port",),
    },
    "unit/serving/test_server_home.py": {
        "test_a_token_file_is_read": ("serving.admin_token_file",),
    },
    "integration/serving/test_clients.py": {
        "test_whoever_hangs_up_leaves_the_batch_and_what_takes_too_long_at_the_end_is_told_to_ask_again": (
            "serving.drain_s",
        ),
    },
    "unit/serving/test_app.py": {
        "test_a_request_that_takes_too_long_is_given_up": ("serving.request_timeout_s",),
    },
    "unit/serving/test_chat_api.py": {
        "test_requests_have_limits": ("serving.max_new_tokens",),
    },
    "unit/serving/test_client.py": {
        "test_where_the_server_is_asked_is_set": ("serving.url",),
    },
    "unit/serving/test_engine.py": {
        "test_what_computes_behind_the_server_is_set": ("serving.engine",),
    },
    "unit/serving/test_model_manager.py": {
        "test_the_name_that_clients_ask_for_is_set": ("serving.alias",),
        "test_how_requests_are_batched_is_set": ("serving.max_batch", "serving.max_queue"),
        "test_memory_holds_a_stated_number": ("serving.max_loaded",),
    },
    "unit/serving/test_server.py": {
        "test_the_host_that_is_set_is_bound": ("serving.host",),
        "test_the_port_that_is_set_is_bound": ("serving.port",),
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
            "gate.flip_share",
            "gate.gain",
        ),
    },
    "unit/systems/test_controller.py": {
        "test_how_often_a_claim_is_renewed_is_set": ("control.lease_s",),
    },
    "unit/systems/test_dead_letters.py": {
        "test_the_longest_pause_of_a_failed_subject_is_set": ("control.max_backoff_s",),
        "test_after_how_many_failures_a_subject_is_given_up_is_set": ("control.max_failures",),
        "test_after_how_many_deaths_a_subject_is_given_up_is_set": ("control.max_kills",),
    },
    "unit/worker/test_stopping.py": {
        "test_how_long_work_may_take_to_give_way_is_set": ("control.grace_s",),
    },
    "unit/worker/test_liveness.py": {
        "test_the_file_that_shows_life_is_set": ("control.alive_file",),
    },
    "unit/worker/test_wakeups.py": {
        "test_how_often_a_worker_sweeps_and_runs_its_timer_is_set": ("control.sweep_factor", "control.timer_s"),
    },
}
