"""The outside view of the stack for its tests: ledger, web pages, Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from tests.support.compose import eventually, query

if TYPE_CHECKING:
    from .conftest import Stack

LOOP_S = 900.0
SOON_S = 300.0


def get(url: str, **options: Any) -> Any:
    answer = httpx.get(url, timeout=30.0, **options)
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:300]}"
    return answer.json()


def decided(stack: Stack) -> int:
    """Checkpoints after the base that deployment has given its verdict on."""
    return int(query(stack.hub, "select count(*) from verdicts where system = 'deployment'")[0][0])


def goes_on(stack: Stack) -> None:
    """Wait until one more checkpoint has been trained, judged and decided on."""
    before = decided(stack)
    eventually(lambda: decided(stack) > before, LOOP_S, "further verdict of deployment")


def nothing_went_wrong(stack: Stack) -> None:
    """No dead letter, and no checkpoint was evaluated twice on one suite, or batch trained twice."""
    assert query(stack.hub, "select system, subject_id, error from dead_letters") == []
    twice = "select checkpoint_id, suite_id from evaluations group by 1, 2 having count(*) > 1"
    assert query(stack.hub, twice) == []


def prometheus(stack: Stack, path: str) -> Any:
    return get(f"{stack.url('RATCHET_PROMETHEUS_PORT')}/api/v1/{path}")["data"]
