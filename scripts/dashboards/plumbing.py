"""Workers, events, claims, and the stores."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards.panel import Limit, Panels, Query, board, filled, lines, number


def plumbing() -> Dashboard:
    page = board("ratchet-plumbing", "Ratchet: plumbing", "Workers, events, claims, ledger and Redis.")
    rows = {
        "Stores": _presence(),
        "Events": _events(),
        "Work": _work(),
        "Problems": _problems(),
        "Cost": _cost(),
    }
    return filled(page, rows)


def _presence() -> Panels:
    return [
        number("Ledger", "1 if it answers.", Query("min(ratchet_ledger_up)")),
        number("Redis", "1 if it answers.", Query("min(ratchet_redis_up)")),
        number("Workers", "Workers that are there.", Query("sum(ratchet_workers)")),
        number(
            "Longest unseen",
            "Workers say twice a minute that they are there.",
            Query("max(ratchet_worker_unseen_seconds)"),
            unit="s",
            limits=[Limit(90, "orange"), Limit(180, "red")],
        ),
        number(
            "Pages not scraped",
            "Metrics that Prometheus cannot fetch.",
            Query('count(up{job=~"ratchet|hub|node"} == 0) or vector(0)'),
            limits=[Limit(1, "red")],
        ),
        number(
            "Outbox",
            "Events in the ledger that have not reached Redis yet.",
            Query("max(ratchet_outbox_waiting)"),
            limits=[Limit(10, "orange"), Limit(100, "red")],
        ),
    ]


def _events() -> Panels:
    quantile = "histogram_quantile({share}, sum by (le) (rate(ratchet_event_to_start_seconds_bucket[5m])))"
    return [
        lines(
            "From event to start",
            "Median and 99th percentile of the time from an event to the start of its lane.",
            [Query(quantile.format(share=share), name) for share, name in ((0.5, "p50"), (0.99, "p99"))],
            unit="s",
        ),
        lines(
            "Unread events",
            "Backlog of each system.",
            [Query("sum by (group) (ratchet_events_pending)", "{{group}}")],
        ),
        lines(
            "Events consumed",
            "A minute, by event.",
            [Query("sum by (event) (rate(ratchet_events_consumed_total[5m])) * 60", "{{event}}")],
        ),
        lines(
            "Events kept",
            "In Redis, by event; at most 10,000 are kept.",
            [Query("max by (event) (ratchet_stream_events)", "{{event}}")],
        ),
    ]


def _work() -> Panels:
    quantile = "histogram_quantile(0.95, sum by (system, le) (rate(ratchet_work_seconds_bucket[15m])))"
    return [
        lines(
            "Pending subjects",
            "Subjects that wait for each system.",
            [Query("max by (system) (ratchet_pending)", "{{system}}")],
        ),
        lines(
            "Claims",
            "Subjects that are worked on, by system.",
            [Query("sum by (system) (ratchet_working)", "{{system}}")],
        ),
        lines(
            "Held claims",
            "Claims that workers hold, including those of killed workers that have not expired yet.",
            [Query("max by (system) (ratchet_claims_held)", "{{system}}")],
        ),
        lines(
            "Longest held",
            "Time since the oldest held claim was made.",
            [Query("max by (system) (ratchet_claim_oldest_seconds)", "{{system}}")],
            unit="s",
        ),
        lines(
            "Time at work",
            "Seconds of work a second, by system: 1 is a lane that is always busy.",
            [Query("sum by (system) (rate(ratchet_work_seconds_sum[5m]))", "{{system}}")],
        ),
        lines(
            "Time per subject",
            "95 of 100 were done within this time, by system.",
            [Query(quantile, "{{system}}")],
            unit="s",
        ),
        lines(
            "Claimed and deferred",
            "Subjects claimed, and deferred for a missing input, an hour.",
            [
                Query("sum by (system) (increase(ratchet_claims_total[1h]))", "{{system}} taken"),
                Query("sum by (system) (increase(ratchet_not_ready_total[1h])) > 0 or vector(0)", "{{system}} put off"),
            ],
            span=24,
        ),
    ]


def _problems() -> Panels:
    return [
        lines(
            "Failures",
            "Attempts that counted against their subject, an hour.",
            [Query("sum by (system, kind) (increase(ratchet_failures_total[1h]))", "{{system}} {{kind}}")],
        ),
        lines(
            "Waits for what is unavailable",
            "Waits for the ledger, Redis, a disk or a server, an hour.",
            [Query("sum by (system) (increase(ratchet_transient_waits_total[1h]))", "{{system}}")],
        ),
        lines(
            "Setbacks of held subjects",
            "Failures and process deaths of the subjects in work; dead letters are the next step.",
            [Query("max by (system) (ratchet_claim_setbacks)", "{{system}}")],
        ),
        lines(
            "Dead letters",
            "Open ones, by system.",
            [Query("max by (system) (ratchet_dead_letters)", "{{system}}")],
        ),
    ]


def _cost() -> Panels:
    return [
        lines(
            "Memory",
            "Resident memory of each worker, without its model children.",
            [Query('max by (worker) (process_resident_memory_bytes{job="ratchet"})', "{{worker}}")],
            unit="bytes",
        ),
        lines(
            "CPU",
            "Share of a core, by worker, without its model children.",
            [Query('max by (worker) (rate(process_cpu_seconds_total{job="ratchet"}[5m]))', "{{worker}}")],
            unit="percentunit",
        ),
        lines(
            "Reading the ledger",
            "What the hub's own look at it took.",
            [Query("max(ratchet_ledger_read_seconds)", "time")],
            unit="s",
            span=24,
        ),
    ]
