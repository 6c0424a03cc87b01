"""``python -m ratchet.worker SYSTEM`` runs one system, with its logs on stderr or in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ratchet.settings.settings import load
from ratchet.worker.main import run_worker

parser = argparse.ArgumentParser(prog="python -m ratchet.worker", description=__doc__)
parser.add_argument("system", help="name of the system, such as testing")
parser.add_argument("--logs", type=Path, default=None, help="folder of the log file (default: stderr)")
arguments = parser.parse_args()
sys.exit(run_worker(arguments.system, load(), arguments.logs))
