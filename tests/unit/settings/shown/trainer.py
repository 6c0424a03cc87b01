"""What tests of the trainer show."""

from __future__ import annotations

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "unit/trainer/previews/test_previews.py": {
        "test_the_preview_backend_follows_the_settings": (
            "monitoring.preview_api_key",
            "monitoring.preview_backend",
            "monitoring.preview_model",
            "monitoring.preview_url",
        ),
        "test_the_preview_interval_follows_the_setting": ("monitoring.preview_interval",),
        "test_the_preview_size_follows_the_setting": ("monitoring.preview_samples",),
    },
    "unit/trainer/systems/test_retention.py": {
        "test_old_events_go_after_as_many_days_as_the_setting_says": ("retention.events_days",),
        "test_old_records_go_after_as_many_days_as_the_setting_says": ("retention.records_days",),
        "test_retention_follows_the_settings": ("retention.checkpoints_gb",),
    },
    "unit/trainer/systems/test_training_system.py": {
        "test_without_judges_training_stops_at_its_limit": ("queue.unjudged_limit",),
    },
    "unit/trainer/test_callbacks.py": {
        "test_a_tracker_receives_the_loss": ("environment.report_to",),
    },
    "unit/trainer/test_distributed.py": {
        "test_a_model_is_sharded_with_fsdp_and_several_processes": ("environment.parallelism",),
    },
    "unit/trainer/test_engine.py": {
        "test_a_failure_is_a_result_with_its_kind": (
            "data.dataset_path",
            "model.path",
            "output.resume_from",
        ),
        "test_gradient_clipping_follows_the_setting": ("hyperparams.max_grad_norm",),
        "test_rows_longer_than_the_limit_are_left_out_and_named": ("hyperparams.max_length",),
        "test_gradient_checkpointing_follows_the_setting": ("model.gradient_checkpointing",),
        "test_output_folder_and_logging_follow_the_settings": (
            "monitoring.logging_steps",
            "output.output_dir",
        ),
    },
    "unit/trainer/test_hardware.py": {
        "test_a_missing_gpu_is_a_settings_error": ("environment.device",),
        "test_the_precision_of_a_run_follows_the_setting": ("hyperparams.fp_precision",),
        "test_the_attention_kernel_follows_the_setting": ("model.attention",),
    },
    "unit/trainer/test_model.py": {
        "test_weights_of_4_bits_need_adapters_and_bitsandbytes": ("model.load_in_4bit",),
        "test_the_shape_of_adapters_follows_the_settings": (
            "model.lora_alpha",
            "model.lora_rank",
        ),
        "test_layers_that_the_model_lacks_are_a_wrong_setting": ("model.lora_targets",),
    },
    "unit/trainer/test_optimizer.py": {
        "test_learning_rate_and_decay_follow_the_settings": (
            "hyperparams.learning_rate",
            "hyperparams.weight_decay",
        ),
    },
    "unit/trainer/test_resume.py": {
        "test_a_segment_ends_when_its_time_is_up": ("hyperparams.segment_max_s",),
    },
    "unit/trainer/test_run.py": {
        "test_offset_and_start_step_follow_the_settings": (
            "data.offset",
            "output.first_step",
        ),
        "test_the_order_of_rows_follows_the_settings": (
            "data.seed",
            "data.shuffle",
        ),
        "test_the_number_of_steps_follows_the_settings": (
            "hyperparams.batch_size",
            "hyperparams.gradient_accumulation",
            "hyperparams.max_steps",
            "hyperparams.num_epochs",
            "hyperparams.save_steps",
        ),
        "test_the_schedule_follows_the_settings": (
            "hyperparams.schedule",
            "hyperparams.warmup_steps",
        ),
    },
}
