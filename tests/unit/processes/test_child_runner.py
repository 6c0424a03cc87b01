"""Running targets in children: results, failures, stops, stalls, kills."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ratchet.errors import ChildFailed, SettingsError, Stopping, TransientError
from ratchet.processes.child_runner import ChildRunner
from ratchet.processes.messages import AddRunner, Channel, ServerProcess

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def runner() -> Iterator[ChildRunner]:
    with ChildRunner(["child_targets", "statistics"], env={"PYTHONPATH": HERE}) as runner:
        yield runner


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(*pids: int) -> None:
    while not all(is_gone(pid) for pid in pids):
        time.sleep(0.01)


class Witness:
    """Remembers progress, and acts on the first of it."""

    def __init__(self, act: Any = lambda _: None) -> None:
        self.messages: list[dict[str, Any]] = []
        self._act = act

    def __call__(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if len(self.messages) == 1:
            self._act(message)

    @property
    def was_told(self) -> bool:
        return bool(self.messages)


def test_a_target_returns_its_result(runner: ChildRunner) -> None:
    assert runner.run("child_targets:double", {"number": 21}) == {"doubled": 42}


def test_every_run_is_a_new_process_of_one_server_with_modules_imported(runner: ChildRunner) -> None:
    first, second = (runner.run("child_targets:where_am_i", {}) for _ in range(2))
    assert first["pid"] != second["pid"]
    assert first["ppid"] == second["ppid"] == runner.start()
    assert first["was_preloaded"]
    assert first["threads"] == "1"
    assert is_gone(first["pid"])


def test_progress_arrives_in_order_before_the_result(runner: ChildRunner) -> None:
    witness = Witness()
    assert runner.run("child_targets:count", {"steps": 500}, on_progress=witness) == {"steps": 500}
    assert witness.messages == [{"step": step} for step in range(500)]


def test_megabytes_go_both_ways(runner: ChildRunner) -> None:
    spec = {"rows": [{"text": "é" * 100, "n": n} for n in range(20_000)]}
    assert runner.run("child_targets:echo", spec) == spec


def test_all_that_a_child_writes_goes_to_its_log(runner: ChildRunner, tmp_path: Path) -> None:
    log_path = tmp_path / "logs" / "testing.child.log"
    for _ in range(2):
        runner.run("child_targets:speak", {}, log_path=log_path)
    assert log_path.read_text() == "on stdout\non stderr\nfrom C\n" * 2


def test_an_exception_comes_back_with_its_traceback(runner: ChildRunner) -> None:
    with pytest.raises(ChildFailed, match="child_targets:fail raised ValueError: no such level: 9") as caught:
        runner.run("child_targets:fail", {"level": 9})
    assert caught.value.error_type == "ValueError"
    assert "child_targets.py" in caught.value.trace
    assert not caught.value.killed
    assert not caught.value.out_of_memory


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("child_targets:absent", "no attribute 'absent'"),
        ("no_such_module:run", "No module named 'no_such_module'"),
        ("child_targets:return_a_list", "returned list"),
        ("child_targets:return_a_path", "not JSON serializable"),
        ("child_targets:lose_a_pipe", "raised BrokenPipeError: the store has closed"),
        ("child_targets:leave", "exited with code 3"),
    ],
)
def test_a_wrong_target_is_an_error_with_the_reason(runner: ChildRunner, target: str, said: str) -> None:
    with pytest.raises(ChildFailed, match=said) as caught:
        runner.run(target, {})
    assert not caught.value.killed


def test_out_of_memory_is_an_error_of_its_own(runner: ChildRunner) -> None:
    with pytest.raises(ChildFailed, match="can't allocate memory") as caught:
        runner.run("child_targets:run_out_of_memory", {})
    assert caught.value.out_of_memory


@pytest.mark.parametrize("target", ["find_the_store_away", "fill_the_disk"])
def test_a_transient_error_in_a_child_stays_transient(runner: ChildRunner, target: str) -> None:
    with pytest.raises(TransientError) as caught:
        runner.run(f"child_targets:{target}", {})
    assert isinstance(caught.value.__cause__, ChildFailed)


@pytest.mark.parametrize(
    ("target", "said"), [("refuse_the_device", "torch finds no CUDA GPU"), ("miss_a_plugin", "no profile 'odd'")]
)
def test_a_settings_error_in_a_child_stays_a_settings_error(runner: ChildRunner, target: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        runner.run(f"child_targets:{target}", {})
    assert isinstance(caught.value.__cause__, ChildFailed)
    assert "child_targets.py" in caught.value.__cause__.trace


def test_a_segfault_is_reported_with_the_end_of_the_log(runner: ChildRunner, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="SIGSEGV") as caught:
        runner.run("child_targets:segfault", {}, log_path=tmp_path / "log")
    assert caught.value.killed
    assert "about to crash" in caught.value.trace
    assert "child_targets.py" in caught.value.trace


def test_a_killed_child_is_reported_and_the_next_run_works(runner: ChildRunner) -> None:
    killer = Witness(lambda message: os.kill(message["pid"], signal.SIGKILL))
    with pytest.raises(ChildFailed, match="SIGKILL") as caught:
        runner.run("child_targets:sleep_for_ever", {}, on_progress=killer)
    assert caught.value.killed
    assert runner.run("child_targets:double", {"number": 1}) == {"doubled": 2}


def test_a_killed_child_takes_its_workers_with_it(runner: ChildRunner) -> None:
    killer = Witness(lambda message: os.kill(message["pids"][0], signal.SIGKILL))
    with pytest.raises(ChildFailed, match="SIGKILL"):
        runner.run("child_targets:have_workers", {}, on_progress=killer)
    wait_until_gone(*killer.messages[0]["pids"])


def test_workers_that_a_child_left_behind_go_with_it(runner: ChildRunner) -> None:
    witness = Witness()
    assert runner.run("child_targets:have_workers", {"then": "return"}, on_progress=witness) == {}
    wait_until_gone(*witness.messages[0]["pids"])


def test_a_stalled_child_is_killed_and_logs_its_stack(runner: ChildRunner, tmp_path: Path) -> None:
    witness = Witness()
    with pytest.raises(ChildFailed, match="made no progress") as caught:
        runner.run(
            "child_targets:sleep_for_ever",
            {},
            on_progress=witness,
            stall_s=2.0,
            log_path=tmp_path / "log",
        )
    assert "in sleep_for_ever" in caught.value.trace
    assert not caught.value.killed
    assert is_gone(witness.messages[0]["pid"])


@pytest.mark.parametrize("target", ["sleep_for_ever", "ignore_being_stopped"])
def test_a_stop_ends_the_child_whether_it_cooperates_or_not(runner: ChildRunner, target: str) -> None:
    witness = Witness()
    with pytest.raises(Stopping):
        runner.run(
            f"child_targets:{target}",
            {},
            on_progress=witness,
            should_stop=lambda: witness.was_told,
            grace_s=lambda: 0.3,
        )
    assert is_gone(witness.messages[0]["pid"])


def test_a_result_after_the_stop_counts(runner: ChildRunner) -> None:
    witness = Witness()
    result = runner.run(
        "child_targets:finish_when_stopped",
        {},
        on_progress=witness,
        should_stop=lambda: witness.was_told,
        grace_s=lambda: 60,
    )
    assert result == {"saved": True}


def test_an_error_in_the_parent_ends_the_child(runner: ChildRunner) -> None:
    def refuse(message: dict[str, Any]) -> None:
        raise LookupError(message["pid"])

    with pytest.raises(LookupError) as caught:
        runner.run("child_targets:sleep_for_ever", {}, on_progress=refuse)
    assert is_gone(caught.value.args[0])


def test_a_killed_server_fails_the_run_and_is_replaced() -> None:
    with ChildRunner(["child_targets"], env={"PYTHONPATH": HERE}) as runner:
        first = runner.start()
        killer = Witness(lambda _: os.kill(first, signal.SIGKILL))
        with pytest.raises(ChildFailed, match="SIGKILL") as caught:
            runner.run("child_targets:have_workers", {}, on_progress=killer)
        assert caught.value.killed
        wait_until_gone(*killer.messages[0]["pids"])
        assert runner.run("child_targets:double", {"number": 2}) == {"doubled": 4}
        second = runner.start()
        assert second != first
        os.kill(second, signal.SIGKILL)
        assert runner.run("child_targets:double", {"number": 3}) == {"doubled": 6}
        third = runner.start()
    assert is_gone(third)


def test_a_module_that_cannot_be_imported_names_the_way_out() -> None:
    with ChildRunner(["no_such_module"]) as runner, pytest.raises(TransientError, match="no_such_module"):
        runner.run("no_such_module:run", {})


def test_two_runs_share_one_server_at_the_same_time(runner: ChildRunner, tmp_path: Path) -> None:
    def run(name: str) -> str:
        spec = {"folder": str(tmp_path), "name": name}
        return str(runner.run("child_targets:meet", spec)["name"])

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(run, ["a", "b"])) == ["a", "b"]


def test_the_server_outlives_the_thread_that_started_it() -> None:
    with ChildRunner(["child_targets"], env={"PYTHONPATH": HERE}) as runner:
        starter = threading.Thread(target=runner.start)
        starter.start()
        starter.join()
        pid = runner.start()
        assert runner.run("child_targets:where_am_i", {})["ppid"] == pid


def test_nothing_outlives_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, HERE], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        descendants = {int(pid) for pid in parent.stdout.readline().split()}
        assert len(descendants) == 4
        assert not any(is_gone(pid) for pid in descendants)
        parent.kill()
        wait_until_gone(*descendants)


PARENT = """
import sys
from ratchet.processes.child_runner import ChildRunner
from ratchet.processes.messages import AddRunner, Channel, ServerProcess
runner = ChildRunner(["child_targets"], env={"PYTHONPATH": sys.argv[1]})
def tell(message):
    if "pids" in message:
        print(runner.start(), *message["pids"], flush=True)
runner.run("child_targets:have_workers", {}, on_progress=tell)
"""


def test_the_threads_of_a_child_follow_the_setting() -> None:
    with ChildRunner(threads=3, env={"PYTHONPATH": HERE}) as runner:
        assert runner.run("child_targets:where_am_i", {})["threads"] == "3"


@contextmanager
def shared_server(*modules: str) -> Iterator[ServerProcess]:
    """A fork server to which runners are added."""
    server = ServerProcess(
        "ratchet.processes.fork_server", *modules, environment={**os.environ, "PYTHONPATH": HERE}, output=None
    )
    try:
        yield server
    finally:
        server.close(5.0)


def runner_of(server: ServerProcess, preload: str = "child_targets") -> ChildRunner:
    ours, theirs = socket.socketpair()
    with theirs:
        server.send(AddRunner(), [theirs.fileno()])
    return ChildRunner([preload], env={"PYTHONPATH": HERE}, shared=Channel(ours))


def test_runners_share_a_server_that_ends_with_the_last_of_them() -> None:
    with shared_server("child_targets") as server, runner_of(server) as second:
        with runner_of(server) as first:
            pids = {first.start(), second.start(), server.process.pid}
            assert {each.run("child_targets:where_am_i", {})["ppid"] for each in (first, second)} == pids
        server.hang_up()
        assert second.run("child_targets:double", {"number": 2}) == {"doubled": 4}
        second.close()
        assert server.process.wait(5.0) == 0


def test_a_runner_that_is_gone_takes_only_its_own_children_along() -> None:
    def run(runner: ChildRunner, witness: Witness) -> None:
        with suppress(ChildFailed, TransientError):
            runner.run("child_targets:sleep_for_ever", {}, on_progress=witness)

    with shared_server("child_targets") as server, runner_of(server) as lasting:
        gone, pids = runner_of(server), list[int]()
        witnesses = [Witness(lambda message: pids.append(message["pid"])) for _ in range(2)]
        threads = [threading.Thread(target=run, args=pair) for pair in zip((gone, lasting), witnesses, strict=True)]
        for thread, witness in zip(threads, witnesses, strict=True):
            thread.start()
            while not witness.was_told:
                time.sleep(0.01)
        gone.close()
        wait_until_gone(pids[0])
        assert not is_gone(pids[1])
        os.kill(pids[1], signal.SIGKILL)
        for thread in threads:
            thread.join()


def test_a_runner_whose_shared_server_is_gone_starts_one_of_its_own() -> None:
    with shared_server("child_targets") as server, runner_of(server) as runner:
        assert runner.start() == server.process.pid
        server.process.kill()
        wait_until_gone(server.process.pid)
        found = runner.run("child_targets:where_am_i", {})
        assert found["ppid"] == runner.start() != server.process.pid


def test_a_runner_whose_shared_server_could_not_import_a_module_starts_one_of_its_own() -> None:
    with shared_server("child_targets", "no_such_module") as server, runner_of(server) as runner:
        assert runner.run("child_targets:double", {"number": 21}) == {"doubled": 42}
        assert runner.start() != server.process.pid
