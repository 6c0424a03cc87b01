"""Is the loop turning? The page to have on the wall."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.panel import Limit, Query, board, lines, number


def overview() -> Dashboard:
    page = board("ratchet-overview", "Ratchet: overview", "Is the loop turning, and does it get better?")
    page = (
        page.with_row(Row("Now"))
        .with_panel(
            number(
                "Champion's accuracy",
                "Share of the eval suite's items that the deployed checkpoint answers right.",
                Query('max(ratchet_accuracy_overall_ratio{role="champion"})'),
                unit="percentunit",
            )
        )
        .with_panel(
            number(
                "Champion's age",
                "Time since the last change of the champion.",
                Query("max(ratchet_champion_age_seconds)"),
                unit="s",
            )
        )
        .with_panel(
            number(
                "Queue",
                "Examples on their way to training.",
                Query("sum(ratchet_queue_examples)"),
            )
        )
        .with_panel(
            number(
                "Oldest thing not done",
                "The longest that anything waits for a judge or for the gate.",
                Query('max(ratchet_undone_oldest_seconds{system!="training"})'),
                unit="s",
                limits=[Limit(600, "orange"), Limit(1800, "red")],
            )
        )
        .with_panel(
            number(
                "Dead letters",
                "Subjects that were given up and wait for a human.",
                Query("sum(ratchet_dead_letters)"),
                limits=[Limit(1, "red")],
            )
        )
        .with_panel(
            number(
                "Alerts",
                "Alerts that fire.",
                Query('count(ALERTS{alertstate="firing"}) or vector(0)'),
                limits=[Limit(1, "red")],
            )
        )
    )
    return (
        page.with_row(Row("The loop"))
        .with_panel(
            lines(
                "Accuracy",
                "On the eval suite: the newest checkpoint against the champion.",
                [Query("max by (role) (ratchet_accuracy_overall_ratio)", "{{role}}")],
                unit="percentunit",
                most=1,
            )
        )
        .with_panel(
            lines(
                "Checkpoints",
                "Number of the newest checkpoint and of the champion.",
                [
                    Query("max(ratchet_checkpoint_newest_ordinal)", "newest"),
                    Query("max(ratchet_champion_ordinal)", "champion"),
                ],
            )
        )
        .with_panel(
            lines(
                "Queue",
                "Examples by where they stand, against the marks of generation.",
                [
                    Query("sum by (place) (ratchet_queue_examples)", "{{place}}"),
                    Query("max(ratchet_queue_low_water_examples)", "low water"),
                    Query("max(ratchet_queue_high_water_examples)", "high water"),
                ],
            )
        )
        .with_panel(
            lines(
                "Verdicts",
                "Verdicts a minute, by system.",
                [Query("sum by (system) (rate(ratchet_verdicts_total[5m])) * 60", "{{system}}")],
            )
        )
    )
