"""The words of this project and of its statistics, each in one sense. docs/glossary.md and the page's
tooltips are made from them."""

from __future__ import annotations

TERMS = {
    "artifact": (
        "An immutable folder or file in the artifact store, named by the digest of its content. A manifest of "
        "sha256 sums is written last."
    ),
    "batch": ("A JSONL artifact of training examples with provenance. It is trained on once, in one or more segments."),
    "candidate": "The checkpoint that may challenge the champion next.",
    "challenger": "The one checkpoint that the deployment gate compares with the champion on the confirm suite.",
    "champion": "The checkpoint that is meant to be live. The base model is the first one.",
    "checkpoint": "Weights (or a LoRA adapter) that a segment has saved, with its place in the lineage.",
    "claim": "A worker's time-limited right to work on a subject, renewed by a heartbeat.",
    "data gate": (
        "The checks that every row passes before it can be queued: schema, gold answer, duplicates, leaks, length."
    ),
    "dead letter": "A subject that has failed too often to be tried again without an operator.",
    "event": (
        "A fact that has been committed to the ledger, such as `checkpoint.saved`. Events wake systems; they carry ids."
    ),
    "evaluation": "The stored answers, grades and log-probabilities of one checkpoint on one suite.",
    "family": (
        "A kind of problem with a grader and levels of difficulty, such as `chain_sum`. The rows of a task "
        "have its name as their family."
    ),
    "fencing token": "A number that grows with each claim of a subject. A commit with an older one is refused.",
    "home": "The folder in which Ratchet keeps everything on a machine, `run/` by default.",
    "item": "One question of a suite, with its gold answer.",
    "judge": "A system whose verdict on a checkpoint the deployment gate waits for.",
    "lane": "One loop of a system: a `find` and a `do`, run in its own thread, one subject at a time.",
    "ledger": "The SQL database that holds every fact and decision.",
    "lineage": "The chain of checkpoints that training continues from.",
    "outbox": "The ledger table from which committed events are published.",
    "pool": (
        "A group of held-out items with one permitted use: `probe` for mining and curriculum, `eval` for "
        "judges, `confirm` for the deployment gate alone."
    ),
    "profile": "A plug-in that formats an example for training and parses an answer.",
    "role": (
        "What a host is for: `4090` trains, `3090` judges and serves. It prefixes the names of queues. One "
        "host can have both."
    ),
    "segment": "A bounded stretch of training, at most 15 minutes by default, that ends in a checkpoint.",
    "subject": "What a verdict is about: a checkpoint, a batch, a request.",
    "suite": "A fixed, versioned set of items of one pool.",
    "sweep": ("A periodic search for subjects without a verdict. It finds what a lost event would have announced."),
    "system": "One of the eleven parts, such as testing or deployment: a declaration, its lanes, a worker.",
    "task": (
        "A user's data set under a name: rows to train on, held-out rows, a metric (accuracy, loss or judge). "
        "The task `general` holds what a pretrained model could do already."
    ),
    "verdict": "A system's decision on a subject, committed once, together with its effects and events.",
}
"""Terms of the project, with their meanings in Markdown."""

MEASURES = {
    "95 % interval": (
        "The range that holds the true value in 95 of 100 such measurements. More items make it narrower."
    ),
    "blocked": "Weights that were rolled back. They are not deployed again until an operator unblocks them.",
    "calibration": (
        "How far a stated confidence agrees with the share of right answers: of answers that are 80 % sure, "
        "80 % should be right."
    ),
    "canary": (
        "The comparison of a checkpoint's answers on the inference server with those that were judged, before "
        "it goes live."
    ),
    "challenge": (
        "One run of the deployment test: a challenger against the champion on the confirm suite. Each has a "
        "smaller share of the permitted error."
    ),
    "coverage": (
        "What the rows of a batch contain: levels, features of the questions, near-duplicates, and what is missing."
    ),
    "ECE": (
        "Expected calibration error: the mean distance between stated confidence and the share of right "
        "answers. 0 is best."
    ),
    "entropy": "How evenly the rows of a batch are spread over levels: 1 is even, 0 is all in one level.",
    "error class": "What kind of mistake a wrong answer is, such as a lost carry.",
    "gain": ("An item that the earlier checkpoint answered wrong and the later one right; a loss is the reverse."),
    "gap": "How far a level falls short of its share in the mix that was asked for.",
    "grader": "The rule that decides whether an answer is right, such as equality of numbers.",
    "held out": "Rows that are never trained on, so that every checkpoint can be tested on them.",
    "low water": "The number of examples below which the queue is refilled.",
    "margin": ("The drop that the gate still tolerates on a task. A checkpoint must be proved to stay above it."),
    "mastered": "A level of which nearly all probe items are answered right.",
    "metric": (
        "How a task is measured: accuracy where answers can be checked, loss for free text, judge for an LLM judge."
    ),
    "mix": "The shares of families and levels in what is generated next.",
    "noise floor": (
        "How many grades of an unchanged model change when it is asked again in batches of another size. A difference "
        "of this size says nothing."
    ),
    "novelty": "The share of a batch's different items that no earlier batch had.",
    "p-value": "How often chance alone would give a difference this large between equal checkpoints.",
    "pass": "Once over all training rows of a task.",
    "preview": (
        "Answers of the model in training to rows of its file, for information only. No decision depends on them."
    ),
    "protected": "The deployment gate refuses a model that is worse on this task.",
    "proved": "Shown by the deployment gate's test to be better than the checkpoint that it replaced.",
    "quarantine": "Rows that the data gate refused, each with its line and the reason. Nothing is thrown away.",
    "tie": "Two checkpoints that the paired comparison on the same items cannot tell apart.",
    "trial": (
        "A stretch of training on batches of one arm, and the items of the probe suite that were gained and lost in it."
    ),
    "underpowered": "Tested on fewer items than it takes to notice the drop with the usual certainty.",
    "watch": "The time after a deployment in which errors and latency of the served model roll it back.",
    "worker": "The process that runs one system.",
}
"""Further words of the tables and pages."""
