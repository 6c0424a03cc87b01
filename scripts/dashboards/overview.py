"""Whether the loop runs: live checkpoint, training, queue and alerts."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards.panel import Limit, Panels, Query, board, filled, lines, number


def overview() -> Dashboard:
    page = board("ratchet-overview", "Ratchet: overview", "Is the loop turning, and does it get better?")
    return filled(page, {"Now": _now(), "The loop": _loop(), "What clients get": _clients()})


def _now() -> Panels:
    accuracy = 'max(ratchet_accuracy_overall_ratio{role="champion"})'
    pending = 'max(ratchet_pending_oldest_seconds{system!="training"})'
    return [
        number(
            "Champion's accuracy",
            "Share of the eval suite's items that the deployed checkpoint answers right.",
            Query(accuracy),
            unit="percentunit",
        ),
        number(
            "Champion's age",
            "Time since the last change of the champion.",
            Query("max(ratchet_champion_age_seconds)"),
            unit="s",
        ),
        number("Queue", "Examples that wait for training or are in training.", Query("sum(ratchet_queue_examples)")),
        number(
            "Oldest pending subject",
            "Longest time that a subject has waited for a judge or the gate.",
            Query(pending),
            unit="s",
            limits=[Limit(600, "orange"), Limit(1800, "red")],
        ),
        number(
            "Dead letters",
            "Open dead letters, which need an operator.",
            Query("sum(ratchet_dead_letters)"),
            limits=[Limit(1, "red")],
        ),
        number(
            "Alerts",
            "Alerts that fire.",
            Query('count(ALERTS{alertstate="firing"}) or vector(0)'),
            limits=[Limit(1, "red")],
        ),
    ]


def _loop() -> Panels:
    return [
        lines(
            "Accuracy",
            "On the eval suite: the newest checkpoint against the champion.",
            [Query("max by (role) (ratchet_accuracy_overall_ratio)", "{{role}}")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Checkpoints",
            "Number of the newest checkpoint and of the champion.",
            [
                Query("max(ratchet_checkpoint_newest_ordinal)", "newest"),
                Query("max(ratchet_champion_ordinal)", "champion"),
            ],
        ),
        lines(
            "Queue",
            "Examples by place, with the low and high marks of generation.",
            [
                Query("sum by (place) (ratchet_queue_examples)", "{{place}}"),
                Query("max(ratchet_queue_low_water_examples)", "low water"),
                Query("max(ratchet_queue_high_water_examples)", "high water"),
            ],
        ),
        lines(
            "Verdicts",
            "Verdicts a minute, by system.",
            [Query("sum by (system) (rate(ratchet_verdicts_total[5m])) * 60", "{{system}}")],
        ),
    ]


def _clients() -> Panels:
    quantile = "histogram_quantile({share}, sum by (le) (rate(ratchet_serving_latency_seconds_bucket[5m])))"
    return [
        lines(
            "Requests",
            "Chat completions a minute, by HTTP status.",
            [Query("sum by (status) (rate(ratchet_serving_requests_total[5m])) * 60 or vector(0)", "{{status}}")],
        ),
        lines(
            "Time to the answer",
            "Median and 99th percentile of the time to a whole answer.",
            [Query(quantile.format(share=share), name) for share, name in ((0.5, "p50"), (0.99, "p99"))],
            unit="s",
        ),
        lines(
            "Tokens served",
            "Tokens a second, read and written.",
            [Query("sum by (kind) (rate(ratchet_serving_tokens_total[5m])) or vector(0)", "{{kind}}")],
        ),
        lines(
            "Waiting and loaded",
            "Requests in the queue and in flight, and checkpoints in memory: two while a challenger is checked.",
            [
                Query("sum(ratchet_serving_waiting)", "requests waiting"),
                Query("sum(ratchet_serving_in_flight)", "requests in flight"),
                Query("max(ratchet_serving_loaded)", "checkpoints loaded"),
            ],
        ),
    ]
