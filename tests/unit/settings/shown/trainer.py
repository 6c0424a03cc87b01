"""What tests of the trainer show."""

from __future__ import annotations

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "unit/trainer/previews/test_previews.py": {
        "test_which_backend_answers_and_how_it_is_asked_is_set": (
            "monitoring.preview_api_key",
            "monitoring.preview_backend",
            "monitoring.preview_model",
            "monitoring.preview_url",
        ),
        "test_when_previews_are_asked_is_set": ("monitoring.preview_interval",),
        "test_how_many_questions_a_preview_has_is_set": ("monitoring.preview_samples",),
    },
    "unit/trainer/systems/test_publish.py": {
        "test_what_is_kept_is_set": ("retention.checkpoints_gb",),
    },
    "unit/trainer/systems/test_training_system.py": {
        "test_with_the_judges_away_training_goes_to_its_limit_and_waits": ("queue.unjudged_limit",),
    },
    "unit/trainer/test_callbacks.py": {
        "test_a_tracker_hears_the_loss": ("environment.report_to",),
    },
    "unit/trainer/test_distributed.py": {
        "test_a_model_is_shared_where_that_is_set_and_there_is_somebody_to_share_it_with": ("environment.parallelism",),
    },
    "unit/trainer/test_engine.py": {
        "test_a_failure_is_a_value_with_its_kind": (
            "data.dataset_path",
            "model.path",
            "output.resume_from",
        ),
        "test_to_which_norm_gradients_are_clipped_is_set": ("hyperparams.max_grad_norm",),
        "test_rows_longer_than_the_limit_are_left_out_and_named": ("hyperparams.max_length",),
        "test_activations_are_computed_again_where_that_is_set": ("model.gradient_checkpointing",),
        "test_where_a_run_writes_and_what_it_tells_is_set": (
            "monitoring.logging_steps",
            "output.output_dir",
        ),
    },
    "unit/trainer/test_hardware.py": {
        "test_a_gpu_that_is_not_there_is_a_wrong_setting": ("environment.device",),
        "test_the_precision_of_the_saved_weights_is_set": ("hyperparams.fp_precision",),
        "test_the_attention_kernel_is_set": ("model.attention",),
    },
    "unit/trainer/test_model.py": {
        "test_four_bits_need_adapters_and_a_library": ("model.load_in_4bit",),
        "test_how_adapters_are_shaped_is_set": (
            "model.lora_alpha",
            "model.lora_rank",
        ),
        "test_layers_that_the_model_lacks_are_a_wrong_setting": ("model.lora_targets",),
    },
    "unit/trainer/test_optimizer.py": {
        "test_rate_and_decay_of_adamw_are_set": (
            "hyperparams.learning_rate",
            "hyperparams.weight_decay",
        ),
    },
    "unit/trainer/test_resume.py": {
        "test_a_segment_ends_when_its_time_is_up": ("hyperparams.segment_max_s",),
    },
    "unit/trainer/test_run.py": {
        "test_where_the_file_and_the_steps_begin_is_set": (
            "data.offset",
            "output.first_step",
        ),
        "test_the_order_of_rows_is_set": (
            "data.seed",
            "data.shuffle",
        ),
        "test_how_many_steps_there_are_is_set": (
            "hyperparams.batch_size",
            "hyperparams.gradient_accumulation",
            "hyperparams.max_steps",
            "hyperparams.num_epochs",
            "hyperparams.save_steps",
        ),
        "test_how_the_learning_rate_goes_is_set": (
            "hyperparams.schedule",
            "hyperparams.warmup_steps",
        ),
    },
}
