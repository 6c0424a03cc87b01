"""Training: loss, speed, the queue, and the machine under it."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.panel import Limit, Query, board, lines, number


def training() -> Dashboard:
    page = board("ratchet-training", "Ratchet: training", "Loss, speed, data, cards and disks.")
    page = (
        page.with_row(Row("The line of training"))
        .with_panel(
            lines("Loss", "The newest training loss.", [Query("max by (host) (ratchet_training_loss)", "{{host}}")])
        )
        .with_panel(
            lines(
                "Tokens a second",
                "Trained tokens; 0 while no segment runs.",
                [Query("max by (host) (ratchet_training_tokens_per_second)", "{{host}}")],
            )
        )
        .with_panel(
            lines(
                "Steps",
                "Optimizer steps of the running segment and of the newest checkpoint.",
                [
                    Query("max(ratchet_training_step)", "running"),
                    Query("max(ratchet_checkpoint_newest_step)", "saved"),
                ],
            )
        )
        .with_panel(
            lines(
                "Progress of the batch",
                "Share of the running batch that is trained.",
                [Query("max(ratchet_training_batch_done_examples / ratchet_training_batch_examples)", "trained")],
                unit="percentunit",
                most=1,
            )
        )
    )
    page = (
        page.with_row(Row("Data"))
        .with_panel(
            number(
                "Queue lasts for",
                "At the speed of the last segments.",
                Query("max(ratchet_queue_left_seconds)"),
                unit="s",
                span=6,
            )
        )
        .with_panel(
            number(
                "Untested checkpoints",
                "Training waits at the limit (queue.unjudged_limit).",
                Query("max(ratchet_checkpoints_unjudged)"),
                limits=[Limit(10, "orange"), Limit(20, "red")],
                span=6,
            )
        )
        .with_panel(
            number("Quarantined rows", "Put aside by the gate.", Query("max(ratchet_quarantined_examples)"), span=6)
        )
        .with_panel(
            number("Paused", "1 while a human has paused training.", Query("max(ratchet_training_paused)"), span=6)
        )
        .with_panel(
            lines(
                "Batches",
                "Batches by state.",
                [Query("max by (state) (ratchet_batches)", "{{state}}")],
                span=24,
            )
        )
    )
    return (
        page.with_row(Row("Machines"))
        .with_panel(
            lines(
                "GPU utilization",
                "Share of the time in which a kernel ran.",
                [Query("max by (host, gpu) (ratchet_gpu_utilization_ratio)", "{{host}} {{gpu}}")],
                unit="percentunit",
                most=1,
            )
        )
        .with_panel(
            lines(
                "GPU memory",
                "In use, against what the card has.",
                [
                    Query("max by (host, gpu) (ratchet_gpu_memory_used_bytes)", "{{host}} {{gpu}} used"),
                    Query("max by (host, gpu) (ratchet_gpu_memory_total_bytes)", "{{host}} {{gpu}}"),
                ],
                unit="bytes",
            )
        )
        .with_panel(
            lines(
                "GPU temperature",
                "Above 85 degrees an alert comes.",
                [Query("max by (host, gpu) (ratchet_gpu_temperature_celsius)", "{{host}} {{gpu}}")],
                unit="celsius",
            )
        )
        .with_panel(
            lines(
                "GPU power",
                "What the card draws.",
                [Query("max by (host, gpu) (ratchet_gpu_power_watts)", "{{host}} {{gpu}}")],
                unit="watt",
            )
        )
        .with_panel(
            lines(
                "Disk left",
                "On the disk of the home folder.",
                [Query("max by (host, path) (ratchet_disk_free_bytes)", "{{host}} {{path}}")],
                unit="bytes",
                span=24,
            )
        )
    )
