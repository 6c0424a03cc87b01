"""Putting the page together: figures and facts into one HTML file that needs nothing else."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ratchet.cli.output import duration
from ratchet.cli.view.words import levels_line, percent, plain, standing
from ratchet.report.data_mix import data_mix
from ratchet.report.experiment import experiment
from ratchet.report.facts import Facts
from ratchet.report.leaderboard import best_first, leaderboard
from ratchet.report.learning import learning_curves
from ratchet.report.losses import loss_and_accuracy
from ratchet.report.reliability import reliability
from ratchet.report.weakness import weaknesses
from ratchet.stats.wilson import wilson

TEMPLATE = "page.html"
MOST_ROWS = 30


def render(facts: Facts) -> str:
    """The page. Values from the ledger are escaped; there is no script in it, and no address."""
    environment = Environment(
        loader=PackageLoader("ratchet.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"plain": plain, "day": _day, "duration": duration}
    return environment.get_template(TEMPLATE).render(
        facts=facts,
        tiles=_tiles(facts),
        figures={
            "learning": learning_curves(facts),
            "progress": loss_and_accuracy(facts),
            "leaderboard": leaderboard(facts),
            "reliability": reliability(facts),
            "mix": data_mix(facts),
            "experiment": experiment(facts),
            "weaknesses": weaknesses(facts),
        },
        leaders=[_leader(facts, look) for look in best_first(facts)[:MOST_ROWS]],
        shares=sorted(facts.mixes[-1].shares.items()) if facts.mixes else [],
        quarantine=sum((Counter(batch.reasons) for batch in facts.batches), Counter()).most_common(),
    )


def write(facts: Facts, file: Path) -> None:
    """Write the page to the file, making its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render(facts), encoding="utf-8")


def _tiles(facts: Facts) -> list[tuple[str, str]]:
    """The numbers at the top: (number, what it counts)."""
    trained = [batch for batch in facts.batches if batch.state == "trained"]
    live = next((k for k in facts.judged if facts.live and k.ordinal == facts.live.desired), None)
    return [
        (f"#{live.ordinal}" if live else "–", "is live"),
        (f"{percent(live.overall)} %" if live and live.overall else "–", "right on the eval suite"),
        (f"{max(len(facts.judged) - 1, 0)}", "checkpoints judged"),
        (f"{sum(c.ordinal > 0 for c in facts.changes)}", "deployments"),
        (f"{sum(batch.examples for batch in trained):,}", "examples trained on"),
        (f"{sum(batch.lessons for batch in trained):,}", "of them lessons from mistakes"),
        (f"{sum(sum(m.by_category.values()) for m in facts.mined):,}", "weak items mined"),
        (f"{facts.dead}", "dead letters"),
    ]


def _leader(facts: Facts, look: Any) -> dict[str, Any]:
    bounds = wilson(look.overall.correct, look.overall.n)
    return {
        "ordinal": look.ordinal,
        "step": f"{look.step:,}",
        "rate": f"{100 * look.overall.value:.1f} %",
        "interval": f"{100 * bounds.low:.1f} to {100 * bounds.high:.1f}",
        "levels": levels_line(look).split(" · "),
        "stands": standing(look, facts.live),
        "reason": _first_sentence(plain(facts.reasons.get(look.ordinal, ""))),
        "is_live": facts.live is not None and look.ordinal == facts.live.desired,
    }


def _first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence; numbers keep theirs."""
    head, stop, _ = text.partition(". ")
    return head + "." if stop else head


def _day(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
