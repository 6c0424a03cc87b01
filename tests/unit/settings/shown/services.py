"""What tests of the services show, but for the trainer."""

from __future__ import annotations

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "unit/datagen/systems/test_generation_system.py": {
        "test_the_number_of_generating_processes_follows_the_setting": ("generation.workers", "queue.batch_examples"),
        "test_the_epoch_cap_follows_the_setting": ("queue.epoch_cap",),
    },
    "unit/datagen/systems/test_refills.py": {
        "test_a_cooldown_lies_between_two_batches": ("generation.cooldown_s",),
        "test_the_hourly_budget_is_kept": ("generation.hourly_examples",),
        "test_a_source_that_makes_nothing_is_asked_with_growing_pauses": ("generation.sources",),
        "test_the_high_mark_follows_the_setting": ("queue.high_water",),
    },
    "unit/datagen/systems/test_task_batches.py": {
        "test_families_and_tasks_are_both_taught_and_families_are_replayed": ("generation.replay_share",),
    },
    "unit/datagen/test_strategies.py": {
        "test_progressive_takes_its_frontier_share_from_the_settings": ("curriculum.frontier_share",),
        "test_adaptive_takes_the_share_of_its_replay_from_the_settings": ("curriculum.replay_share",),
    },
    "unit/datagen/test_bandit.py": {
        "test_the_initial_shares_follow_the_settings": ("curriculum.exploration", "curriculum.favoured"),
        "test_one_arm_is_no_experiment": ("curriculum.strategies",),
    },
    "unit/datagen/systems/test_curriculum_system.py": {
        "test_mastery_follows_the_setting": ("curriculum.mastery",),
    },
    "unit/deployer/systems/test_rollout.py": {
        "test_the_length_of_the_watch_follows_the_setting": ("serving.watch_s",),
    },
    "unit/deployer/test_canary.py": {
        "test_the_coarser_dtype_sets_the_tolerance_unless_it_is_set": ("serving.logprob_epsilon",),
        "test_the_limits_of_the_watch_follow_the_settings": ("serving.max_error_rate", "serving.max_latency_ratio"),
    },
    "unit/deployer/test_challenge.py": {
        "test_mastery_for_protection_follows_the_setting": ("gate.mastery",),
    },
    "unit/gate/test_decision.py": {
        "test_the_required_proof_follows_the_settings": ("gate.alpha", "gate.margin"),
        "test_the_full_test_of_a_family_needs_more_items_by_the_plan": ("gate.power",),
        "test_the_required_promise_follows_the_setting": ("gate.screen_alpha",),
    },
    "unit/gate/test_decision_by_metric.py": {
        "test_the_margin_of_the_drift_is_a_setting": ("gate.general_margin",),
        "test_the_margin_of_a_loss_is_a_setting": ("gate.loss_margin",),
    },
    "unit/evaluator/test_preferences.py": {
        "test_testing_asks_the_judge_and_records_what_it_cost": ("judge.url",),
        "test_another_judge_or_template_makes_records_that_are_not_compared": ("judge.model", "judge.template"),
        "test_the_better_answer_wins_in_both_orders": ("judge.api_key",),
        "test_the_daily_budget_counts_what_the_ledger_knows": ("judge.daily_tokens",),
    },
    "unit/evaluator/systems/test_testing_system.py": {
        "test_the_longest_answer_follows_the_setting": ("suites.max_new_tokens",),
    },
    "unit/evaluator/test_calibration_fit.py": {
        "test_a_higher_precision_means_more_abstention": ("calibration.precision",),
    },
    "unit/evaluator/test_ranking.py": {
        "test_cost_does_not_change_the_score": ("comparison.max_size_bytes", "comparison.min_tokens_per_s"),
    },
    "unit/evaluator/test_regression_verdict.py": {
        "test_the_level_of_the_test_follows_the_setting": ("regression.alpha",),
        "test_the_critical_drop_follows_the_setting": ("regression.critical_drop",),
    },
    "unit/miner/systems/test_correction_system.py": {
        "test_the_inbox_folder_follows_the_setting": ("queue.inbox",),
    },
    "unit/miner/systems/test_diversity_system.py": {
        "test_nearness_and_history_follow_the_settings": ("diversity.history_examples", "diversity.near"),
    },
    "unit/miner/systems/test_correction_batches.py": {
        "test_the_make_up_of_a_correction_batch_follows_the_settings": (
            "correction.judged_share",
            "queue.correction_share",
        ),
        "test_sampling_follows_the_settings": ("correction.samples",),
    },
    "unit/miner/systems/test_mining_system.py": {
        "test_the_search_has_its_budget_from_the_settings": ("mining.search_items",),
    },
}
