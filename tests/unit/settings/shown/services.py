"""What tests of the services show, but for the trainer."""

from __future__ import annotations

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "unit/datagen/systems/test_generation_system.py": {
        "test_in_how_many_processes_examples_are_made_is_set": ("generation.workers", "queue.batch_examples"),
        "test_how_often_an_item_may_be_in_a_batch_is_set": ("queue.epoch_cap",),
    },
    "unit/datagen/systems/test_refills.py": {
        "test_a_cooldown_lies_between_two_batches": ("generation.cooldown_s",),
        "test_an_hours_budget_is_kept_and_the_queue_waits": ("generation.hourly_examples",),
        "test_a_source_that_makes_nothing_is_not_asked_without_end": ("generation.sources",),
        "test_above_which_depth_nothing_is_made_is_set": ("queue.high_water",),
    },
    "unit/datagen/test_strategies.py": {
        "test_progressive_takes_its_frontier_share_from_the_settings": ("curriculum.frontier_share",),
        "test_adaptive_takes_the_share_of_its_replay_from_the_settings": ("curriculum.replay_share",),
    },
    "unit/datagen/test_bandit.py": {
        "test_how_the_shares_begin_is_set": ("curriculum.exploration", "curriculum.favoured"),
        "test_one_arm_is_no_experiment": ("curriculum.strategies",),
    },
    "unit/datagen/systems/test_curriculum_system.py": {
        "test_when_a_level_is_mastered_is_set": ("curriculum.mastery",),
    },
    "unit/deployer/systems/test_rollout.py": {
        "test_how_long_a_deployment_is_watched_is_set": ("serving.watch_s",),
    },
    "unit/deployer/test_canary.py": {
        "test_the_coarser_dtype_sets_the_tolerance_unless_it_is_set": ("serving.logprob_epsilon",),
        "test_the_limits_are_set": ("serving.max_error_rate", "serving.max_latency_ratio"),
    },
    "unit/deployer/test_challenge.py": {
        "test_what_counts_as_mastered_is_set": ("gate.mastery",),
    },
    "unit/deployer/test_gate.py": {
        "test_how_much_proof_is_asked_for_is_set": ("gate.alpha", "gate.margin"),
        "test_the_full_test_of_a_family_needs_more_items_by_the_plan": ("gate.power",),
        "test_how_promising_a_checkpoint_must_be_is_set": ("gate.screen_alpha",),
    },
    "unit/evaluator/systems/test_testing_system.py": {
        "test_how_long_an_answer_may_be_is_set": ("suites.max_new_tokens",),
    },
    "unit/evaluator/test_calibration_fit.py": {
        "test_a_higher_promise_is_kept_by_abstaining_more": ("calibration.precision",),
    },
    "unit/evaluator/test_ranking.py": {
        "test_cost_is_a_budget_and_no_score": ("comparison.max_size_bytes", "comparison.min_tokens_per_s"),
    },
    "unit/evaluator/test_regression_verdict.py": {
        "test_how_surely_a_drop_must_be_proved_is_set": ("regression.alpha",),
        "test_which_drop_is_critical_is_set": ("regression.critical_drop",),
    },
    "unit/miner/systems/test_correction_system.py": {
        "test_which_folder_is_the_inbox_is_set": ("queue.inbox",),
    },
    "unit/miner/systems/test_diversity_system.py": {
        "test_what_is_near_and_how_far_back_is_looked_are_set": ("diversity.history_examples", "diversity.near"),
    },
    "unit/miner/systems/test_correction_batches.py": {
        "test_what_a_correction_batch_is_made_of_is_set": (
            "correction.judged_share",
            "queue.correction_examples",
            "queue.correction_share",
        ),
        "test_how_answers_are_sampled_is_set": ("correction.samples",),
        "test_how_many_examples_one_item_gives_is_set": ("queue.correction_relatives",),
        "test_how_many_batches_lie_between_corrections_is_set": ("queue.correction_spacing",),
    },
    "unit/miner/systems/test_mining_system.py": {
        "test_a_budget_of_nothing_searches_nothing": ("mining.search_items",),
        "test_the_search_has_its_budget_and_its_rounds_from_the_settings": ("mining.round_items",),
        "test_how_many_weak_items_are_handed_on_is_set": ("queue.mined_items",),
    },
}
