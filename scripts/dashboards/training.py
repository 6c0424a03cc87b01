"""Training: loss, speed, the queue and its sources, and the machine."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards.panel import Limit, Panels, Query, board, filled, lines, number


def training() -> Dashboard:
    page = board("ratchet-training", "Ratchet: training", "Loss, speed, data, cards and disks.")
    rows = {
        "Training lineage": _line(),
        "Data": _data(),
        "What it learns from": _corrections(),
        "Cards": _cards(),
        "Disks": _disks(),
    }
    return filled(page, rows)


def _line() -> Panels:
    right, asked = (f"max(last_over_time(ratchet_training_preview_{what}[1h]))" for what in ("right", "asked"))
    return [
        lines("Loss", "The newest training loss.", [Query("max by (host) (ratchet_training_loss)", "{{host}}")]),
        lines(
            "Tokens a second",
            "Trained tokens; 0 while no segment runs.",
            [Query("max by (host) (ratchet_training_tokens_per_second)", "{{host}}")],
        ),
        lines(
            "Steps",
            "Optimizer steps of the running segment and of the newest checkpoint.",
            [
                Query("max(ratchet_training_step)", "running"),
                Query("max(ratchet_checkpoint_newest_step)", "saved"),
            ],
        ),
        lines(
            "Progress of the batch",
            "Share of the running batch that is trained.",
            [Query("max(ratchet_training_batch_done_examples / ratchet_training_batch_examples)", "trained")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Previews",
            "Share of the last preview's questions that the model in training answered right. It decides nothing.",
            [Query(f"{right} / {asked}", "right")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Tokens trained",
            "Tokens that the newest checkpoint was trained on, since the base model.",
            [Query("max(ratchet_checkpoint_newest_tokens)", "tokens")],
        ),
    ]


def _data() -> Panels:
    return [
        number(
            "Queue time left",
            "At the speed of the last segments.",
            Query("max(ratchet_queue_left_seconds)"),
            unit="s",
        ),
        number("Tokens in the queue", "Trainable tokens.", Query("max(ratchet_queue_tokens)")),
        number(
            "Untested checkpoints",
            "Training waits at the limit (queue.unjudged_limit).",
            Query("max(ratchet_checkpoints_unjudged)"),
            limits=[Limit(10, "orange"), Limit(20, "red")],
            span=8,
        ),
        number("Quarantined rows", "Rows in quarantine.", Query("max(ratchet_quarantined_examples)")),
        number("Paused", "1 while a human has paused training.", Query("max(ratchet_training_paused)")),
        lines("Batches", "Batches by state.", [Query("max by (state) (ratchet_batches)", "{{state}}")], span=24),
    ]


def _corrections() -> Panels:
    return [
        lines(
            "The curriculum's mix",
            "Share of the batches, by family and level.",
            [Query("max by (strategy) (ratchet_curriculum_share_ratio)", "{{strategy}}")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Coverage of the newest batch",
            "Entropy over its levels, and share of items that no earlier batch had.",
            [
                Query("max(ratchet_coverage_entropy_ratio)", "evenness"),
                Query("max(ratchet_coverage_novelty_ratio)", "new"),
            ],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Mined items",
            "Weak items of the newest set, by why they are weak.",
            [Query("sum by (category) (ratchet_mined_items) or vector(0)", "{{category}}")],
        ),
        lines(
            "Does mining find weaknesses?",
            "Share of the previous set that the next checkpoint fails, and of random items of the same levels.",
            [Query("max by (of) (ratchet_mined_failed_again_ratio)", "{{of}}")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "Backed-off error classes",
            "Error classes that get no correction examples at present, because the last ones had no effect.",
            [Query("max(ratchet_correction_backed_off_classes) or vector(0)", "backed off")],
            span=24,
        ),
    ]


def _cards() -> Panels:
    return [
        lines(
            "GPU utilization",
            "Share of the time in which a kernel ran.",
            [Query("max by (host, uuid) (nvidia_smi_utilization_gpu_ratio)", "{{host}} {{uuid}}")],
            unit="percentunit",
            most=1,
        ),
        lines(
            "GPU memory",
            "Used and total memory.",
            [
                Query("max by (host, uuid) (nvidia_smi_memory_used_bytes)", "{{host}} {{uuid}} used"),
                Query("max by (host, uuid) (nvidia_smi_memory_total_bytes)", "{{host}} {{uuid}}"),
            ],
            unit="bytes",
        ),
        lines(
            "GPU temperature",
            "An alert fires above 85 °C.",
            [Query("max by (host, uuid) (nvidia_smi_temperature_gpu)", "{{host}} {{uuid}}")],
            unit="celsius",
        ),
        lines(
            "GPU power",
            "What the card draws.",
            [Query("max by (host, uuid) (nvidia_smi_power_draw_watts)", "{{host}} {{uuid}}")],
            unit="watt",
        ),
    ]


def _disks() -> Panels:
    disks = '{fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660"}'
    return [
        lines(
            "Free disk space",
            "Bytes free on each disk of each machine.",
            [Query(f"min by (host, device) (node_filesystem_avail_bytes{disks})", "{{host}} {{device}}")],
            unit="bytes",
        ),
        lines(
            "Free share of the disk",
            "Alerts fire below 10 % and below 3 %.",
            [
                Query(
                    f"min by (host, device) (node_filesystem_avail_bytes{disks} / node_filesystem_size_bytes)",
                    "{{host}} {{device}}",
                )
            ],
            unit="percentunit",
            most=1,
        ),
    ]
