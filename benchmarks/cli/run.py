"""CPU time of three commands from a shell, beside a bare Python and the import of typer.

Nearly all of it is imports, so it is counted in CPU seconds (user and system), which a busy machine changes little.

python -m benchmarks.cli.run                 # nine runs of each; writes RESULTS.md
python -m benchmarks.cli.run --runs 1 --dry
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import WorkerRow
from ratchet.systems import registry
from ratchet.systems.system import Declaration

from tests.support.story import write_story

SMOKE = ("--runs", "0", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
RATCHET = str(Path(sys.executable).parent / "ratchet")
CASES: dict[str, tuple[Sequence[str], float | None]] = {
    "`python -c pass`": ((sys.executable, "-c", "pass"), None),
    "`import typer`": ((sys.executable, "-c", "import typer"), None),
    "`import sqlalchemy.orm`": ((sys.executable, "-c", "import sqlalchemy.orm"), None),
    "`ratchet --help`": ((RATCHET, "--help"), 0.4),
    "`ratchet status`": ((RATCHET, "status"), 0.6),
    "`ratchet systems`": ((RATCHET, "systems"), 0.8),
}
"""By name: the command, and the CPU seconds that it may take."""


def write_home(home: Path) -> None:
    """A home with six checkpoints, as a run with all workers leaves it."""
    home.mkdir()
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    migrate(ledger)
    with ledger.write() as tx:
        write_story(tx)
        tx.session.query(WorkerRow).delete()
        for system in registry.systems().values():
            tx.session.add(
                WorkerRow(
                    name=f"{system.name}@box+0",
                    system=system.name,
                    host="box",
                    pid=1,
                    version="",
                    state="running",
                    started_at=tx.now,
                    seen_at=tx.now,
                    declaration=asdict(Declaration.of(system)),
                )
            )
    ledger.close()


def cpu_s(command: Sequence[str], environment: dict[str, str]) -> float:
    """CPU seconds of one run, which must succeed."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    pid = os.posix_spawn(command[0], [*command], environment, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    os.close(null)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime


def measure(runs: int) -> dict[str, float]:
    """Medians, the cases taken in turn so that a busy minute hits all of them; after one run to fill the caches,
    which counts only if there are no others."""
    with tempfile.TemporaryDirectory() as folder:
        write_home(Path(folder) / "home")
        environment = {**os.environ, "RATCHET_HOME": str(Path(folder) / "home"), "COLUMNS": "120"}
        found: dict[str, list[float]] = {name: [] for name in CASES}
        for run in range(runs + 1):
            for name, (command, _) in CASES.items():
                seconds = cpu_s(command, environment)
                if run or not runs:
                    found[name].append(seconds)
    return {name: median(seconds) for name, seconds in found.items()}


def table(found: dict[str, float]) -> str:
    lines = ["| command | CPU seconds | to reach |", "|---|---|---|"]
    for name, seconds in found.items():
        limit = CASES[name][1]
        lines.append(f"| {name} | {seconds:.2f} | {f'≤ {limit}' if limit is not None else ''} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    asked = parser.parse_args()
    shown = table(measure(asked.runs))
    sys.stdout.write(shown)
    if not asked.dry:
        head = (
            "# CPU time of the command line\n\n"
            f"`python -m benchmarks.cli.run`, {datetime.now(UTC):%Y-%m-%d}, two cores, medians of {asked.runs} runs,\n"
            "user and system time. The home has six checkpoints, and all workers have registered. "
            "Tests assert\nwhich modules are imported, never times. The load average was "
            f"{os.getloadavg()[0]:.0f}: other work raises CPU time, too, as the first three\nrows show.\n\n"
        )
        (HERE / "RESULTS.md").write_text(head + shown, encoding="utf-8")


if __name__ == "__main__":
    main()
