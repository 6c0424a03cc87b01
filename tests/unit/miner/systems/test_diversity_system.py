from __future__ import annotations

from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.diversity import SYSTEM as DIVERSITY
from ratchet.ledger.tables import Batch, Coverage
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.testing.home import Home


def test_every_queued_batch_is_measured_against_the_mix_it_was_made_for(home: Home) -> None:
    rows = [to_example(registry.get("reverse").generate(2, seed), "generation") for seed in range(20)]
    batch_id = home.add_batch(rows, provenance={"mix": {"reverse/2": 0.5, "chain_sum/1": 0.5}})
    heard = home.bus(CORRECTION, DIVERSITY).sweep()
    assert [event.name for event in heard] == ["batch.queued", "coverage.measured"]
    with home.ledger.read() as session:
        numbers = session.get_one(Coverage, batch_id).numbers
        queued = session.get_one(Batch, batch_id).examples
    assert numbers["rows"] == queued
    assert numbers["novelty"] == 1.0
    assert {(cell["family"], cell["level"]): cell["gap"] for cell in numbers["cells"]} == {
        ("chain_sum", 1): 1.0,
        ("reverse", 2): 0.0,
    }


def test_a_rejected_batch_is_not_measured(home: Home) -> None:
    home.add_batch(list(home.suite_items("eval")[:3]))
    home.bus(CORRECTION, DIVERSITY).sweep()
    assert home.verdicts("diversity") == {}
