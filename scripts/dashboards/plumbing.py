"""The plumbing: workers, events, claims, and the stores."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.panel import Limit, Query, board, lines, number


def plumbing() -> Dashboard:
    page = board("ratchet-plumbing", "Ratchet: plumbing", "Workers, events, claims, ledger and Redis.")
    page = (
        page.with_row(Row("Is it there?"))
        .with_panel(number("Ledger", "1 if it answers.", Query("min(ratchet_ledger_up)")))
        .with_panel(number("Redis", "1 if it answers.", Query("min(ratchet_redis_up)")))
        .with_panel(number("Workers", "Workers that are there.", Query("sum(ratchet_workers)")))
        .with_panel(
            number(
                "Longest unseen",
                "Workers say twice a minute that they are there.",
                Query("max(ratchet_worker_unseen_seconds)"),
                unit="s",
                limits=[Limit(90, "orange"), Limit(180, "red")],
            )
        )
        .with_panel(
            number(
                "Pages not scraped",
                "Metrics that Prometheus cannot fetch.",
                Query('count(up{job=~"ratchet|hub|node"} == 0) or vector(0)'),
                limits=[Limit(1, "red")],
            )
        )
        .with_panel(
            number(
                "Outbox",
                "Events in the ledger that Redis has not got yet.",
                Query("max(ratchet_outbox_waiting)"),
                limits=[Limit(10, "orange"), Limit(100, "red")],
            )
        )
    )
    page = (
        page.with_row(Row("From event to work"))
        .with_panel(
            lines(
                "From event to start",
                "Half, and 99 of 100, of the looks that an event caused began within this time.",
                [
                    Query(
                        f"histogram_quantile({share}, sum by (le) (rate(ratchet_event_to_start_seconds_bucket[5m])))",
                        name,
                    )
                    for share, name in ((0.5, "p50"), (0.99, "p99"))
                ],
                unit="s",
            )
        )
        .with_panel(
            lines(
                "Events not read",
                "How far each system is behind.",
                [Query("sum by (group) (ratchet_events_pending)", "{{group}}")],
            )
        )
        .with_panel(
            lines(
                "Events heard",
                "A minute, by event.",
                [Query("sum by (event) (rate(ratchet_events_heard_total[5m])) * 60", "{{event}}")],
            )
        )
        .with_panel(
            lines(
                "Time at work",
                "Seconds of work a second, by system: 1 is a lane that never rests.",
                [Query("sum by (system) (rate(ratchet_work_seconds_sum[5m]))", "{{system}}")],
            )
        )
    )
    return (
        page.with_row(Row("Trouble"))
        .with_panel(
            lines(
                "Failures",
                "Tries that counted against their subject, an hour.",
                [Query("sum by (system, kind) (increase(ratchet_failures_total[1h]))", "{{system}} {{kind}}")],
            )
        )
        .with_panel(
            lines(
                "Waits for the surroundings",
                "For ledger, Redis, disk or server; an hour.",
                [Query("sum by (system) (increase(ratchet_surroundings_waits_total[1h]))", "{{system}}")],
            )
        )
        .with_panel(
            lines(
                "Dead letters",
                "Open ones, by system.",
                [Query("max by (system) (ratchet_dead_letters)", "{{system}}")],
            )
        )
        .with_panel(
            lines(
                "Claims",
                "Subjects that are worked on, by system.",
                [Query("sum by (system) (ratchet_working)", "{{system}}")],
            )
        )
        .with_panel(
            lines(
                "Memory",
                "Resident memory of each worker, without its model children.",
                [Query('max by (worker) (process_resident_memory_bytes{job="ratchet"})', "{{worker}}")],
                unit="bytes",
            )
        )
        .with_panel(
            lines(
                "Processor",
                "Share of a core, by worker, without its model children.",
                [Query('max by (worker) (rate(process_cpu_seconds_total{job="ratchet"}[5m]))', "{{worker}}")],
                unit="percentunit",
            )
        )
    )
