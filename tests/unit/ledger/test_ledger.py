from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ratchet.errors import DamagedLedger, NotJson, TransientError
from ratchet.events import Event, decode
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.ledger import BUSY_TIMEOUT_S, next_counter
from ratchet.ledger.tables import Base, CounterRow, MinedRow, OutboxRow, VerdictRow
from ratchet.ledger.tables.columns import PlainJson
from ratchet.watchdog import LONGEST_CALL_S
from sqlalchemy import JSON, delete, func, insert, select, text

from tests.support.postgres import Postgres
from tests.support.workers import wait_until


def count(ledger: Ledger, name: str) -> int:
    with ledger.read() as session:
        row = session.get(CounterRow, name)
        return row.value if row else 0


def test_a_change_and_its_events_commit_together(ledger: Ledger) -> None:
    event = BatchQueued(batch_id="b1", cause="because")
    with ledger.write() as tx:
        next_counter(tx.session, "n")
        tx.emit(event)
    assert count(ledger, "n") == 1
    with ledger.read() as session:
        row = session.scalars(select(OutboxRow)).one()
    assert (row.event_id, row.name, row.cause, row.relayed_at) == (event.id, "batch.queued", "because", None)
    assert decode(row.body) == event


def test_an_error_rolls_back_the_change_and_its_events(ledger: Ledger) -> None:
    relayed: list[Event] = []
    ledger.after_commit = relayed.extend

    def fail() -> None:
        with ledger.write() as tx:
            next_counter(tx.session, "n")
            tx.emit(BatchQueued(batch_id="b1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert count(ledger, "n") == 0
    assert relayed == []
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0


TEXTS = st.text(st.one_of(st.sampled_from("\0\ud83d\u2028\x85\x0b"), st.characters()), max_size=20)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_any_text_of_a_model_is_stored_and_what_databases_cannot_store_is_seen(
    ledger: Ledger, texts: list[str]
) -> None:
    kept = ["".join("␀" if c == "\0" else "�" if "\ud800" <= c <= "\udfff" else c for c in text) for text in texts]
    with ledger.write() as tx:
        tx.session.execute(delete(VerdictRow))
        verdict = VerdictRow(
            system="s", subject_kind="k", subject_id="i", outcome="o", reason=texts[0], numbers={"said": texts},
            cause=None, worker="w", created_at=0.0, took_s=0.0,
        )  # fmt: skip
        tx.session.add(verdict)
    with ledger.read() as session:
        found = session.scalars(select(VerdictRow)).one()
        assert session.scalars(select(VerdictRow).where(VerdictRow.reason == texts[0])).one() is found
    assert (found.reason, found.numbers) == (kept[0], {"said": kept})


def test_events_are_relayed_after_the_commit_and_only_then(ledger: Ledger) -> None:
    seen: list[int] = []
    ledger.after_commit = lambda _events: seen.append(count(ledger, "n"))
    with ledger.write() as tx:
        next_counter(tx.session, "n")
        tx.emit(BatchQueued(batch_id="b1"))
        assert seen == []
    assert seen == [1]


def test_a_commit_succeeds_while_redis_is_away(ledger: Ledger) -> None:
    def away(_events: list[Event]) -> None:
        raise TransientError("Redis is away")

    ledger.after_commit = away
    with ledger.write() as tx:
        next_counter(tx.session, "n")
        tx.emit(BatchQueued(batch_id="b1"))
    assert count(ledger, "n") == 1


def test_writers_are_serialized(ledger: Ledger) -> None:
    taken: list[int] = []

    def work() -> None:
        for _ in range(10):
            with ledger.write() as tx:
                taken.append(next_counter(tx.session, "n"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 41))


def test_a_reader_sees_one_state_while_others_write(ledger: Ledger) -> None:
    with ledger.write() as tx:
        next_counter(tx.session, "n")
    with ledger.read() as session:
        before = session.scalar(select(CounterRow.value).where(CounterRow.name == "n"))
        with ledger.write() as tx:
            next_counter(tx.session, "n")
        again = session.scalar(select(CounterRow.value).where(CounterRow.name == "n"))
        if ledger.dialect == "sqlite":
            assert before == again == 1
    assert count(ledger, "n") == 2


def test_a_reader_writes_nothing(ledger: Ledger) -> None:
    with ledger.read() as session:
        session.add(CounterRow(name="n", value=7))
        session.flush()
    assert count(ledger, "n") == 0


def test_its_clock_is_epoch_seconds(ledger: Ledger) -> None:
    before = time.time()
    now = ledger.now()
    assert before - 1 <= now <= time.time() + 1


def test_an_unreachable_ledger_is_a_transient_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(TransientError, match=r"ledger\.db is away"):
        ledger.now()


def test_the_error_does_not_show_the_password(tmp_path: Path) -> None:
    ledger = Ledger(f"postgresql+psycopg://me:secret-word@/ratchet?host={tmp_path}")
    with pytest.raises(TransientError) as caught, ledger.write():
        pass
    assert "secret-word" not in str(caught.value)


def test_the_lock_timeout_of_sqlite_follows_the_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    holder, waiting = Ledger(url), Ledger(f"{url}?timeout=0.05")
    with holder.write():
        with pytest.raises(TransientError, match="locked"), waiting.write():
            pass
        with waiting.read():
            pass
    holder.close()
    waiting.close()


def test_the_lock_timeout_of_postgresql_is_that_of_sqlite_or_of_the_server(postgres: Postgres) -> None:
    url = postgres.database()
    holder, waiting = Ledger(url), Ledger(f"{url}&options=-c lock_timeout=50")
    with holder.write() as tx:
        assert tx.session.scalar(text("SHOW lock_timeout")) == "30s"
        with pytest.raises(TransientError, match="lock timeout"), waiting.write():
            pass
    with waiting.write() as tx:
        assert tx.session.scalar(text("SHOW lock_timeout")) == "50ms"
    with holder.read() as session:
        assert session.scalar(text("SHOW lock_timeout")) == "0", "it holds for the transaction, PgBouncer or not"
    holder.close()
    waiting.close()
    postgres.drop(url)


@contextmanager
def mute_server() -> Iterator[str]:
    """A server that accepts connections and never answers, as when packets are dropped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql+psycopg://me@127.0.0.1:{listener.getsockname()[1]}/ratchet?sslmode=disable"


def test_a_silent_postgresql_times_out() -> None:
    """``connect_timeout`` of the URL, which is a test's patience here, goes before ours."""
    with mute_server() as url:
        ledger, began = Ledger(f"{url}&connect_timeout=2"), time.monotonic()
        with pytest.raises(TransientError, match="is away"):
            ledger.now()
        assert 1 < time.monotonic() - began < LONGEST_CALL_S


@pytest.mark.parametrize(("query", "connect_timeout"), [("", "10"), ("&connect_timeout=7", "7")])
def test_a_cut_connection_is_noticed_before_the_watchdog_fires(
    postgres: Postgres, query: str, connect_timeout: str
) -> None:
    with closing(Ledger(f"{postgres.url('postgres')}{query}")) as ledger, ledger.read() as session:
        told = session.connection().connection.dbapi_connection.info.get_parameters()
    assert told["connect_timeout"] == connect_timeout
    idle, interval, count = (int(told[f"keepalives_{name}"]) for name in ("idle", "interval", "count"))
    cut_s = max(int(told["tcp_user_timeout"]) / 1_000, idle + interval * count)
    # To find the link dead, connect again, wait for the lock, and find it dead once more.
    assert 2 * cut_s + int(connect_timeout) + BUSY_TIMEOUT_S < LONGEST_CALL_S


@pytest.mark.parametrize(
    ("numbers", "place"),
    [
        ({"raw": {"ece": [0.1, float("nan")]}}, r"value\.raw\.ece\[1\] = nan"),
        ({"drop": float("-inf")}, r"value\.drop = -inf"),
        ({"when": {1, 2}}, r"value\.when \(set\)"),
    ],
)
def test_a_value_that_is_not_plain_json_is_refused_by_column(
    ledger: Ledger, numbers: dict[str, object], place: str
) -> None:
    row = {"checkpoint_id": "c1", "numbers": numbers, "created_at": 1.0}
    for write in (lambda tx: tx.session.add(MinedRow(**row, count=0, by_category={})), lambda tx: bulk(tx, row)):
        with pytest.raises(NotJson, match=rf"numbers takes plain JSON, and {place}"), ledger.write() as tx:
            write(tx)
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(MinedRow)) == 0


def bulk(tx: Transaction, row: dict[str, object]) -> None:
    tx.session.execute(insert(MinedRow).values(**row, count=0, by_category={}))


def test_all_json_columns_are_checked() -> None:
    columns = [column for table in Base.metadata.tables.values() for column in table.columns]
    assert not [str(column) for column in columns if isinstance(column.type, JSON)]
    known = {str(column.type.column) for column in columns if isinstance(column.type, PlainJson)}
    assert {"verdicts.numbers", "rankings.entries", "evaluations.tally"} <= known


@pytest.mark.parametrize("content", [b"garbage", b"SQLite format 3\0" + b"\1" * 4096], ids=["no-database", "torn"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    with (
        closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger,
        pytest.raises(DamagedLedger, match=r"ledger.db is damaged .*`ratchet backup restore FOLDER --force`"),
    ):
        ledger.now()


OURS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state IS NOT NULL")


@pytest.mark.parametrize("engine", ["postgresql"])
def test_a_process_keeps_one_connection_to_postgresql_and_prepares_nothing(ledger: Ledger) -> None:
    """A dozen workers fit into a server of twenty connections, and behind a PgBouncer that pools transactions."""
    with ledger.read() as first, ledger.read() as second:
        for session in (first, second):
            for _ in range(10):
                session.execute(select(func.count()).select_from(VerdictRow))
        prepared = first.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
        assert (prepared, second.execute(OURS).scalar_one()) == (0, 2)

    def connections() -> int:
        with ledger.read() as session:
            return int(session.execute(OURS).scalar_one())

    wait_until(lambda: connections() == 1, what="the end of the second connection")
