"""Real workers are found through the register and scraped, as Prometheus does it."""

from __future__ import annotations

from ratchet.metrics.hub import discovery
from ratchet.metrics.targets import targets
from ratchet.ports import free_port

from tests.support.playground import Open, Playground
from tests.support.scrape import Scrape
from tests.support.workers import wait_until


def pages(playground: Playground) -> dict[str, str]:
    """URL of each worker's metrics by its system, as /targets names them."""
    with playground.stack.ledger.read() as session:
        found = targets(session, playground.stack.ledger.now())
    return {entry["labels"]["system"]: f"http://{entry['targets'][0]}/metrics" for entry in found}


def test_workers_and_hub_export_metrics_of_finished_work(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", metrics_port=free_port())
    wait_until(lambda: set(pages(playground)) == {"catching", "counting"}, what="both workers in the register")
    urls = pages(playground)
    playground.throw("ball", "failing-1")
    playground.wait_counted("ball")
    wait_until(lambda: bool(playground.letters("failing-1")), what="a dead letter")
    catching, counting = Scrape.of(urls["catching"]), Scrape.of(urls["counting"])
    assert urls["catching"] != urls["counting"]
    assert catching.value("ratchet_events_consumed_total", event="toy.thrown") >= 1
    assert catching.value("ratchet_verdicts_total", outcome="caught") == 1
    assert catching.value("ratchet_failures_total", kind="error") >= 1
    assert catching.value("ratchet_claims_total") >= 4
    assert catching["ratchet_event_to_start_seconds_count"] >= 1
    assert counting.value("ratchet_events_consumed_total", event="toy.caught") >= 1
    with discovery(playground.stack.settings, "127.0.0.1", 0) as hub:
        found = Scrape.of(f"http://127.0.0.1:{hub.server_port}/metrics")
    assert found["ratchet_ledger_up"] == found["ratchet_redis_up"] == 1
    assert found.value("ratchet_dead_letters", system="catching") == 1
    assert found.value("ratchet_workers", system="counting") == 1


def test_without_redis_both_pages_are_still_served(open_playground: Open) -> None:
    playground = open_playground("catching", metrics_port=free_port())
    wait_until(lambda: bool(pages(playground)), what="the worker in the register")
    url = pages(playground)["catching"]
    playground.stack.redis.kill()
    wait_until(lambda: "ratchet_claims_total" in Scrape.of(url).names(), what="the page of a worker that has started")
    with discovery(playground.stack.settings, "127.0.0.1", 0) as hub:
        found = Scrape.of(f"http://127.0.0.1:{hub.server_port}/metrics")
    assert found["ratchet_redis_up"] == 0
    assert found["ratchet_ledger_up"] == 1
    playground.stack.redis.start()
