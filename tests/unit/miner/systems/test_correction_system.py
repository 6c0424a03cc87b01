"""The gate and its inbox on a real ledger, and the way of a mistake from a record to the queue."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.mining import SYSTEM as MINING
from ratchet.data.example import Example
from ratchet.evaluation.build_suites import held_out
from ratchet.ledger.queue import all_usage_counts
from ratchet.ledger.tables import BatchRow, MinedRow, TaskRow, VerdictRow
from ratchet.printable import printable
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import item_key

from tests.support.home import Home, small_home


def sums(home: Home, count: int, first: int = 0) -> list[Example]:
    """Different sums that are not held out."""
    held = held_out(home.settings.suites)
    found: dict[str, Example] = {}
    seed = first
    while len(found) < count:
        problem = registry.get("chain_sum").generate(2, seed)
        seed += 1
        if problem.key not in held:
            found.setdefault(problem.key, to_example(problem, "test"))
    return list(found.values())


def batch(home: Home, batch_id: str) -> BatchRow:
    with home.ledger.read() as session:
        return session.get_one(BatchRow, batch_id)


def rows_of(home: Home, artifact: str | None, name: str = "rows.jsonl") -> list[dict[str, object]]:
    return [json.loads(line) for line in home.artifacts.open_lines(artifact, name)] if artifact else []


def lay(home: Home, name: str, text: str, age_s: float = 60.0) -> Path:
    """A file in the inbox that was last written to some time ago."""
    home.settings.inbox.mkdir(exist_ok=True)
    file = home.settings.inbox / name
    file.write_text(text)
    written = file.stat().st_mtime - age_s
    os.utime(file, (written, written))
    return file


def test_a_good_batch_is_queued_whole_and_its_uses_are_counted(home: Home) -> None:
    rows = sums(home, 30)
    batch_id = home.add_batch(rows)
    heard = home.bus(CORRECTION).sweep()
    queued = batch(home, batch_id)
    assert [event.name for event in heard] == ["batch.queued"]
    assert (queued.state, queued.examples, queued.quarantined) == ("queued", 30, 0)
    assert queued.quarantine_artifact is None
    assert queued.tokens > 30 * 10
    with home.ledger.read() as session:
        assert all_usage_counts(session) == {item_key(row): 1 for row in rows}


def test_bad_rows_are_quarantined_with_reason_and_line_and_none_is_lost(home: Home) -> None:
    good = sums(home, 4)
    wrong = good[3].model_copy(update={"messages": (good[3].messages[0], Example.ask("", "1+1=3").messages[1])})
    leak = home.suite_items("confirm")[0]
    nonsense = Example.ask("What is the meaning of it all?", "42", family="chain_sum", level=1)
    rows = [good[0], wrong, good[1], leak, good[0], nonsense, good[2]]
    batch_id = home.add_batch(rows)
    home.bus(CORRECTION).sweep()
    queued = batch(home, batch_id)
    accepted = rows_of(home, queued.artifact)
    refused = rows_of(home, queued.quarantine_artifact, "quarantine.jsonl")
    assert len(accepted) + len(refused) == len(rows) == queued.examples + queued.quarantined
    assert [row["line"] for row in refused] == [2, 4, 6]
    reasons = {row["line"]: row["reason"] for row in refused}
    assert reasons[2] == "gold"
    assert reasons[4] == "leak"
    assert queued.report["reasons"] == dict(sorted(Counter(reasons.values()).items()))
    with home.ledger.read() as session:
        assert sum(all_usage_counts(session).values()) == len(accepted)


def test_a_batch_without_a_good_row_is_rejected_and_kept(home: Home) -> None:
    leaks = list(home.suite_items("eval")[:3])
    batch_id = home.add_batch(leaks)
    heard = home.bus(CORRECTION).sweep()
    rejected = batch(home, batch_id)
    assert [event.name for event in heard] == ["batch.rejected"]
    assert (rejected.state, rejected.quarantined, rejected.artifact) == ("rejected", 3, None)
    assert len(rows_of(home, rejected.quarantine_artifact, "quarantine.jsonl")) == 3
    with home.ledger.read() as session:
        assert all_usage_counts(session) == {}


def test_high_priority_passes_the_gate_first(home: Home) -> None:
    rows = sums(home, 6)
    normal = home.add_batch(rows[:2])
    low = home.add_batch(rows[2:4], priority=2)
    high = home.add_batch(rows[4:], priority=0)
    home.bus(CORRECTION).sweep()
    assert list(home.verdicts("correction")) == [high, normal, low]


def test_a_batch_skipped_while_it_was_at_the_gate_stays_skipped(home: Home) -> None:
    batch_id = home.add_batch(sums(home, 2))
    with home.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch_id).state = "skipped"
    home.bus(CORRECTION).sweep()
    assert batch(home, batch_id).state == "skipped"
    assert home.verdicts("correction") == {}


def test_a_file_in_the_inbox_passes_the_same_gate_and_its_bad_lines_are_named(home: Home) -> None:
    good = sums(home, 2)
    lay(home, "mine.jsonl", f'{good[0].to_line()}\n{{"half": \n\n{good[1].to_line()}\n[1, 2]\n')
    home.bus(CORRECTION).sweep()
    with home.ledger.read() as session:
        (row,) = session.query(BatchRow)
    assert (row.origin, row.state, row.examples, row.quarantined) == ("user", "queued", 2, 2)
    assert row.provenance["parents"] == ["mine.jsonl"]
    refused = rows_of(home, row.quarantine_artifact, "quarantine.jsonl")
    assert [(r["line"], r["reason"]) for r in refused] == [(2, "unreadable"), (5, "unreadable")]
    assert home.dead() == []


def test_the_same_version_of_a_file_enters_once_and_a_new_version_again(home: Home) -> None:
    good = sums(home, 3)
    file = lay(home, "mine.jsonl", good[0].to_line() + "\n")
    bus = home.bus(CORRECTION)
    bus.sweep()
    assert bus.sweep() == []
    lay(home, "mine.jsonl", "".join(row.to_line() + "\n" for row in good))
    bus.sweep()
    with home.ledger.read() as session:
        batches = session.query(BatchRow).order_by(BatchRow.submitted_at).all()
    assert [row.submitted_examples for row in batches] == [1, 3]
    assert file.exists()


def test_the_same_rows_under_another_name_enter_once(home: Home) -> None:
    text = sums(home, 1)[0].to_line() + "\n"
    lay(home, "one.jsonl", text)
    lay(home, "two.jsonl", text)
    home.bus(CORRECTION).sweep()
    with home.ledger.read() as session:
        assert session.query(BatchRow).count() == 1
    assert home.dead() == []


def test_a_file_that_is_being_written_to_is_waited_for(home: Home) -> None:
    file = lay(home, "growing.jsonl", sums(home, 1)[0].to_line() + "\n", age_s=-100.0)
    bus = home.bus(CORRECTION)
    bus.sweep()
    assert home.verdicts("correction") == {}
    os.utime(file, (1_000.0, 1_000.0))
    bus.sweep()
    assert "queued" in home.verdicts("correction").values()


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_refused(home: Home, text: str) -> None:
    lay(home, "empty.jsonl", text)
    home.bus(CORRECTION).sweep()
    assert list(home.verdicts("correction").values()) == ["refused"]


def test_a_binary_file_does_not_stop_the_gate(home: Home) -> None:
    home.settings.inbox.mkdir()
    file = home.settings.inbox / "image.jsonl"
    file.write_bytes(bytes(range(256)) * 40)
    os.utime(file, (1_000.0, 1_000.0))
    good = home.add_batch(sums(home, 2))
    home.bus(CORRECTION).sweep()
    assert home.verdicts("correction")[good] == "queued"
    assert home.dead() == []


def test_a_file_that_a_process_still_has_open_for_writing_is_waited_for(home: Home) -> None:
    file = lay(home, "slow.jsonl", sums(home, 1)[0].to_line() + "\n")
    bus = home.bus(CORRECTION)
    with file.open("ab"):
        bus.sweep()
        assert home.verdicts("correction") == {}
    bus.sweep()
    assert "queued" in home.verdicts("correction").values()


PACKED = gzip.compress(b"".join(b'{"prompt": "1+%d=", "completion": "%d"}\n' % (n, n + 1) for n in range(20)))
TABLE = b"Question,Answer\n1+2=,\n" + b"".join(b"2+%d=,%d\n" % (n, n + 2) for n in range(20))


def test_other_formats_are_taken_and_their_bad_rows_are_named(home: Home) -> None:
    home.settings.inbox.mkdir(exist_ok=True)
    for name, content in {"a.JSONL.gz": PACKED, "b.csv": TABLE}.items():
        (home.settings.inbox / name).write_bytes(content)
        os.utime(home.settings.inbox / name, (1_000.0, 1_000.0))
    home.bus(CORRECTION).sweep()
    with home.ledger.read() as session:
        rows = {row.provenance["parents"][0]: row for row in session.query(BatchRow)}
        held = {task.name: task.held_rows for task in session.query(TaskRow)}
    assert {name: (row.examples, row.quarantined, row.state) for name, row in rows.items()} == {
        "a.JSONL.gz": (20 - held["a"], 0, "stored"),
        "b.csv": (20 - held["b"], 1, "stored"),
    }
    (refused,) = rows_of(home, rows["b.csv"].quarantine_artifact, "quarantine.jsonl")
    assert refused["reason"] == "unreadable"
    assert "b.csv:2: answer is empty" in str(refused["detail"])


def test_entries_that_are_not_meant_are_ignored_once_and_said_so(home: Home) -> None:
    for name in (".hidden.jsonl", "notes.txt", "rows.jsonl.part", "rows.jsonl~"):
        lay(home, name, "x")
    (home.settings.inbox / "older").mkdir()
    bus = home.bus(CORRECTION)
    bus.sweep()
    lay(home, "rows.jsonl.part", "xx")
    bus.sweep()
    with home.ledger.read() as session:
        found = {row.subject_id.rpartition("@")[0]: row for row in session.query(VerdictRow)}
        assert session.query(VerdictRow).count() == 5
    assert {row.outcome for row in found.values()} == {"ignored"}
    assert "hidden or temporary" in found[".hidden.jsonl"].reason
    assert "rows.jsonl.part is not read: its name ends with none of .jsonl" in found["rows.jsonl.part"].reason


def odd_entries(inbox: Path) -> dict[str, str]:
    """Entries that are no file, with the names and messages of their refusal."""
    inbox.mkdir(exist_ok=True)
    (inbox / "loop.jsonl").symlink_to("loop.jsonl")
    (inbox / "dangling.jsonl").symlink_to("nothing")
    (inbox / "folder.jsonl").mkdir()
    (inbox / "device.jsonl").symlink_to("/dev/zero")
    os.mkfifo(inbox / "fifo.jsonl")
    return {
        "loop.jsonl": "a symbolic link that loops",
        "dangling.jsonl": "no such file",
        "folder.jsonl": "is a folder",
        "device.jsonl": "is a device",
        "fifo.jsonl": "is a pipe",
    }


def test_an_inbox_entry_that_is_no_file_is_refused_by_name_and_the_others_pass(home: Home) -> None:
    odd = odd_entries(home.settings.inbox)
    lay(home, "mine.jsonl", sums(home, 1)[0].to_line() + "\n")
    waiting = home.add_batch(sums(home, 2, first=1_000))
    home.bus(CORRECTION).sweep()
    with home.ledger.read() as session:
        verdicts = {v.subject_id.rpartition("@")[0]: v for v in session.query(VerdictRow) if v.subject_kind == "file"}
    assert {name: verdicts[name].outcome for name in odd} == dict.fromkeys(odd, "refused")
    assert all(said in verdicts[name].reason and name in verdicts[name].reason for name, said in odd.items())
    assert verdicts["mine.jsonl"].outcome == "submitted"
    assert home.verdicts("correction")[waiting] == "queued"
    assert home.dead() == []


@pytest.mark.parametrize("name", [b"bad\xff.jsonl", b"two\nlines.jsonl", "sep\u2028.jsonl".encode()])
def test_a_file_with_an_odd_name_enters_under_one_that_can_be_kept(home: Home, name: bytes) -> None:
    lay(home, os.fsdecode(name), sums(home, 1)[0].to_line() + "\n")
    bus = home.bus(CORRECTION)
    bus.sweep()
    bus.sweep()
    with home.ledger.read() as session:
        (row,) = session.query(BatchRow)
    assert row.provenance["parents"] == [printable(Path(os.fsdecode(name)))]
    assert row.state == "queued"
    assert home.dead() == []


def test_only_the_beginning_of_an_endless_line_is_read(home: Home) -> None:
    lay(home, "mine.jsonl", sums(home, 1)[0].to_line() + '\n{"question": "' + "x" * 20_000_000)
    home.bus(CORRECTION).sweep()
    with home.ledger.read() as session:
        (row,) = session.query(BatchRow)
    assert (row.state, row.examples, row.quarantined) == ("queued", 1, 1)
    assert home.artifacts.size_bytes(row.submitted_artifact) < 10_000


def test_a_file_that_a_crash_has_left_full_of_nuls_is_refused(home: Home) -> None:
    file = lay(home, "mine.jsonl", sums(home, 1)[0].to_line() + "\n")
    os.truncate(file, 100_000_000)
    os.utime(file, (1_000.0, 1_000.0))
    home.bus(CORRECTION).sweep()
    with home.ledger.read() as session:
        (verdict,) = session.query(VerdictRow)
    assert (verdict.outcome, "mine.jsonl: this is binary data" in verdict.reason) == ("refused", True)


def test_a_row_with_a_lone_surrogate_in_its_metadata_is_quarantined(home: Home) -> None:
    good = sums(home, 2)
    half = json.dumps({"question": "q", "answer": "a", "note": "\ud83d"})
    lay(home, "mine.jsonl", f"{good[0].to_line()}\n{half}\n{good[1].to_line()}\n")
    home.bus(CORRECTION).sweep()
    with home.ledger.read() as session:
        (row,) = session.query(BatchRow)
    assert (row.state, row.examples, row.quarantined) == ("queued", 2, 1)
    assert home.dead() == []


def weak(home: Home) -> str:
    """A checkpoint that gets every third probe item wrong."""
    checkpoint = home.add_checkpoint()
    wrong = {item.id for item in home.suite_items("probe")[::3]}
    home.add_record(checkpoint, "probe", lambda item: item.id not in wrong)
    return checkpoint


def test_mistakes_become_a_queued_batch_of_verified_examples_among_ordinary_rows(home: Home) -> None:
    bus = home.bus(MINING, CORRECTION)
    ordinary = home.add_batch(sums(home, 150))
    bus.sweep()
    checkpoint = weak(home)
    heard = [event.name for event in bus.sweep()]
    assert heard == ["examples.mined", "batch.submitted", "batch.queued"]
    assert home.verdicts("mining") == {checkpoint: "mined"}
    assert home.verdicts("correction")[checkpoint] == "submitted"
    with home.ledger.read() as session:
        made = session.query(BatchRow).where(BatchRow.origin == "correction").one()
        assert session.get_one(MinedRow, checkpoint).count == len(home.suite_items("probe")[::3])
    assert (made.state, made.priority, made.quarantined) == ("queued", 0, 0)
    assert f"batch:{ordinary}" in made.provenance["parents"]
    rows = [Example.model_validate(row) for row in rows_of(home, made.artifact)]
    examples = [row for row in rows if "parent" in row.metadata]
    assert len(examples) == made.provenance["counts"]["corrections"] > 0
    assert len(examples) <= home.settings.queue.correction_share * len(rows)
    assert not [row for row in rows if item_key(row) in held_out(home.settings.suites)]


def test_only_the_newest_record_is_mined(home: Home) -> None:
    old, new = weak(home), weak(home)
    home.bus(MINING).sweep()
    assert home.verdicts("mining") == {new: "mined", old: "superseded"}


def test_a_perfect_checkpoint_has_nothing_to_mine(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "probe", lambda _item: True)
    assert home.bus(MINING, CORRECTION).sweep() == []
    assert home.verdicts("mining") == {checkpoint: "nothing mined"}
    assert home.verdicts("correction") == {}


def test_a_checkpoint_that_fails_everything_has_nothing_mined(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "probe", lambda _item: False)
    home.bus(MINING).sweep()
    assert home.verdicts("mining") == {checkpoint: "nothing mined"}


def test_corrections_wait_until_enough_was_generated_since_the_last_ones(home: Home) -> None:
    bus = home.bus(MINING, CORRECTION)
    home.add_batch(sums(home, 150))
    bus.sweep()
    first, second = weak(home), None
    bus.sweep()
    second = weak(home)
    bus.sweep()
    assert home.verdicts("correction")[first] == "submitted"
    assert home.verdicts("correction")[second] == "not yet"


def test_a_full_queue_takes_no_corrections(home: Home) -> None:
    home.add_batch(sums(home, 600))
    home.bus(CORRECTION).sweep()
    weak(home)
    home.bus(MINING, CORRECTION).sweep()
    assert "no room" in home.verdicts("correction").values()
    with home.ledger.read() as session:
        assert session.query(BatchRow).where(BatchRow.origin == "correction").count() == 0


def test_the_inbox_folder_follows_the_setting(tmp_path: Path) -> None:
    with small_home(tmp_path / "told", queue={"inbox": tmp_path / "drop"}) as home:
        lay(home, "mine.jsonl", sums(home, 1)[0].to_line() + "\n")
        assert (tmp_path / "drop" / "mine.jsonl").is_file()
        home.bus(CORRECTION).sweep()
        with home.ledger.read() as session:
            assert [row.provenance["parents"] for row in session.query(BatchRow)] == [["mine.jsonl"]]
