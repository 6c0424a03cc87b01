"""Training loss at each checkpoint, and the accuracy that it bought."""

from __future__ import annotations

from ratchet.report.facts import Facts
from ratchet.report.figure import ACCENT, WARM, drawing, mark_deployments, percent_axis, to_svg
from ratchet.report.learning import live_steps


def loss_and_accuracy(facts: Facts) -> str | None:
    """SVG: accuracy on the eval suite and training loss over the steps; None before the second checkpoint."""
    trained = [look for look in facts.checkpoints if look.loss is not None]
    if len(trained) < 2:
        return None
    with drawing(9.0, 2.5) as figure:
        left, right = figure.subplots(1, 2)
        judged = facts.judged
        left.plot([k.step for k in judged], [k.overall.value for k in judged if k.overall], marker="o", ms=3.5)
        left.set_title("Right on the eval suite, all levels")
        percent_axis(left)
        right.plot([k.step for k in trained], [k.loss or 0.0 for k in trained], color=WARM, marker="o", ms=3.5)
        right.set_title("Training loss")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xlabel("training step")
            mark_deployments(axes, live_steps(facts))
        left.lines[0].set_color(ACCENT)
        return to_svg(figure, "Accuracy and loss over training steps")
