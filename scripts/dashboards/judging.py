"""Judging and deployment: accuracy and calibration of checkpoints, challenges, rollbacks."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards.panel import Limit, Panels, Query, board, filled, lines, number

NEWEST = '{role="newest"}'
CHAMPION = '{role="champion"}'


def judging() -> Dashboard:
    page = board("ratchet-judging", "Ratchet: judging", "Accuracy, calibration, regressions, deployments.")
    rows = {
        "The newest evaluated checkpoint": _newest(),
        "Your tasks": _tasks(),
        "Deployment": _deployed(),
        "Canary": _canary(),
        "Judges": _judges(),
    }
    return filled(page, rows)


def _newest() -> Panels:
    by_level = "max by (family, level)"
    width = f"{by_level} (ratchet_accuracy_high_ratio{NEWEST} - ratchet_accuracy_low_ratio{NEWEST})"
    gain = f"{by_level} (ratchet_accuracy_ratio{NEWEST}) - {by_level} (ratchet_accuracy_ratio{CHAMPION})"
    return [
        lines(
            "Accuracy by level",
            "Share of the eval suite's items answered right.",
            [Query(f"{by_level} (ratchet_accuracy_ratio{NEWEST})", "{{family}} {{level}}")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Calibration",
            "Width of Wilson's 95 % interval, by level.",
            [Query(width, "{{family}} {{level}}")],
            unit="percentunit",
        ),
        lines(
            "Gain over the champion",
            "Newest minus champion, by level; the gate decides on paired items, not on this.",
            [Query(gain, "{{family}} {{level}}")],
            unit="percentunit",
        ).min(-1),
        lines(
            "Calibration error",
            "ECE of the newest checkpoint, as it is and at its temperature.",
            [Query(f"max by (kind) (ratchet_calibration_ece_ratio{NEWEST})", "{{kind}}")],
            unit="percentunit",
        ),
        lines(
            "Temperature",
            "What makes the model's sureness true: above 1 it is too sure of itself.",
            [Query("max by (role) (ratchet_calibration_temperature)", "{{role}}")],
        ),
    ]


def _tasks() -> Panels:
    return [
        lines(
            "Loss by task",
            "Mean loss of the reference answers on the eval suite.",
            [Query("max by (role, task) (ratchet_task_loss_nats)", "{{task}} {{role}}")],
        ),
        lines(
            "Preference by task",
            "Preference of the LLM judge over the reference answers.",
            [Query("max by (role, task) (ratchet_task_preference_ratio)", "{{task}} {{role}}")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Drift from the base",
            "Loss of the base model's own answers to general prompts, less the base's.",
            [Query("max by (role) (ratchet_general_drift_nats)", "{{role}}")],
        ),
        lines(
            "Passes by task",
            "How often a task's rows were taught since rows were last added.",
            [Query("max by (task) (ratchet_task_passes)", "{{task}}")],
        ),
    ]


def _deployed() -> Panels:
    return [
        number(
            "Proved",
            "0 while a human has forced what is to be live past the gate.",
            Query("min(ratchet_champion_proved)"),
        ),
        number("Frozen", "1 while a human has frozen deployment.", Query("max(ratchet_deployment_frozen)")),
        number(
            "Rollbacks",
            "Since the first run.",
            Query('sum(ratchet_deployments_total{action="rollback"}) or vector(0)'),
            limits=[Limit(1, "orange")],
        ),
        number(
            "Deployments",
            "Since the first run.",
            Query('sum(ratchet_deployments_total{action="deploy"}) or vector(0)'),
        ),
        number("Challenges", "Challenges of the champion.", Query("sum(ratchet_challenges_total) or vector(0)")),
        number(
            "Critical regressions",
            "Since the first run. These are candidates: none of them was served.",
            Query('sum(ratchet_regressions_total{severity="critical"})'),
            limits=[Limit(1, "orange")],
        ),
    ]


def _canary() -> Panels:
    return [
        number(
            "Served is champion",
            "1 if the inference server serves what is to be live.",
            Query("min(ratchet_served_is_champion)"),
            span=6,
        ),
        number(
            "Canary",
            "1 if the server answered as the checkpoint did when it was judged.",
            Query("min(ratchet_canary_passed)"),
            span=6,
        ),
        number(
            "Largest difference",
            "Largest difference of a token's log-probability in the last canary (limit: serving.logprob_epsilon).",
            Query("max(ratchet_canary_difference)"),
            span=6,
        ),
        number(
            "Compared",
            "Time since the last one.",
            Query("time() - max(ratchet_canary_timestamp_seconds)"),
            unit="s",
            span=6,
        ),
    ]


def _judges() -> Panels:
    return [
        lines(
            "Oldest pending subject",
            "By system: how long the oldest subject has waited for its verdict.",
            [Query("max by (system) (ratchet_pending_oldest_seconds)", "{{system}}")],
            unit="s",
        ),
        lines(
            "Regression verdicts",
            "Verdicts so far, by severity.",
            [Query("max by (severity) (ratchet_regressions_total)", "{{severity}}")],
        ),
        lines(
            "Oldest evaluation request",
            "An evaluation that a judge needs and testing has not made yet; 0 without one.",
            [Query("max(ratchet_request_oldest_seconds)", "age")],
            unit="s",
            span=24,
        ),
    ]
