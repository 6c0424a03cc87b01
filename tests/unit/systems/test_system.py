from __future__ import annotations

from ratchet.events.catalogue import BatchQueued, BatchRejected, BatchSubmitted
from ratchet.logs import current_log_context, log_context
from ratchet.systems import Lane, System


def lane(name: str, *consumes: type) -> Lane:
    return Lane(name, consumes=consumes, find=lambda _session, _settings: [], do=lambda _work: None)  # type: ignore[arg-type,return-value]


def test_a_system_consumes_what_its_lanes_consume_each_once() -> None:
    lanes = (lane("gate", BatchSubmitted, BatchQueued), lane("mend", BatchQueued, BatchRejected))
    system = System("s", "3090", "", emits=(), sweep_s=60.0, lanes=lanes)
    assert system.consumes == (BatchSubmitted, BatchQueued, BatchRejected)
    assert [each.name for each in system.lanes_consuming(BatchQueued)] == ["gate", "mend"]
    assert [each.name for each in system.lanes_consuming(BatchSubmitted)] == ["gate"]
    assert system.queue == "3090.s"


def test_log_context_names_the_known_ids_and_ends_with_its_block() -> None:
    assert current_log_context() == {}
    with log_context(event=None, subject="toy 1", claim=3):
        assert current_log_context() == {"subject": "toy 1", "claim": 3}
        with log_context(subject="toy 2"):
            assert current_log_context() == {"subject": "toy 2"}
        assert current_log_context() == {"subject": "toy 1", "claim": 3}
    assert current_log_context() == {}
