"""Judging and deploying: how good each checkpoint is, how sure that is, and what became of it."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.panel import Limit, Query, board, lines, number


def judging() -> Dashboard:
    page = board("ratchet-judging", "Ratchet: judging", "Accuracy, calibration, regressions, deployments.")
    page = (
        page.with_row(Row("The newest evaluated checkpoint"))
        .with_panel(
            lines(
                "Accuracy by level",
                "Share of the eval suite's items answered right.",
                [Query('max by (family, level) (ratchet_accuracy_ratio{role="newest"})', "{{family}} {{level}}")],
                unit="percentunit",
                most=1,
            )
        )
        .with_panel(
            lines(
                "How sure that is",
                "Width of Wilson's 95 % interval, by level.",
                [
                    Query(
                        'max by (family, level) (ratchet_accuracy_high_ratio{role="newest"}'
                        ' - ratchet_accuracy_low_ratio{role="newest"})',
                        "{{family}} {{level}}",
                    )
                ],
                unit="percentunit",
            )
        )
        .with_panel(
            lines(
                "Gain over the champion",
                "Newest minus champion, by level; the gate decides on paired items, not on this.",
                [
                    Query(
                        'max by (family, level) (ratchet_accuracy_ratio{role="newest"})'
                        ' - max by (family, level) (ratchet_accuracy_ratio{role="champion"})',
                        "{{family}} {{level}}",
                    )
                ],
                unit="percentunit",
            ).min(-1)
        )
        .with_panel(
            lines(
                "Calibration error",
                "ECE of the newest checkpoint, as it is and at its temperature.",
                [Query('max by (kind) (ratchet_calibration_ece_ratio{role="newest"})', "{{kind}}")],
                unit="percentunit",
            )
        )
    )
    page = (
        page.with_row(Row("What is deployed"))
        .with_panel(
            number(
                "Served is champion",
                "1 if the inference server serves what is to be live.",
                Query("min(ratchet_served_is_champion)"),
            )
        )
        .with_panel(
            number(
                "Canary",
                "1 if the server answered as the checkpoint did when it was judged.",
                Query("min(ratchet_canary_passed) or vector(1)"),
            )
        )
        .with_panel(
            number(
                "Rollbacks",
                "Since the beginning.",
                Query('sum(ratchet_deployments_total{action="rollback"}) or vector(0)'),
                limits=[Limit(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Deployments",
                "Since the beginning.",
                Query('sum(ratchet_deployments_total{action="deploy"}) or vector(0)'),
            )
        )
        .with_panel(
            number("Challenges", "Openings of a confirm suite.", Query("sum(ratchet_challenges_total) or vector(0)"))
        )
        .with_panel(
            number(
                "Critical regressions",
                "Since the beginning.",
                Query('sum(ratchet_regressions_total{severity="critical"})'),
                limits=[Limit(1, "orange")],
            )
        )
    )
    return (
        page.with_row(Row("The judges"))
        .with_panel(
            lines(
                "Oldest thing not done",
                "By system: how long the oldest subject has waited for its verdict.",
                [Query("max by (system) (ratchet_undone_oldest_seconds)", "{{system}}")],
                unit="s",
            )
        )
        .with_panel(
            lines(
                "Regression verdicts",
                "Judgements so far, by severity.",
                [Query("max by (severity) (ratchet_regressions_total)", "{{severity}}")],
            )
        )
    )
