"""Write each dashboard to its file."""

from __future__ import annotations

import sys

from scripts.dashboards import DASHBOARDS, FOLDER, rendered

for name in DASHBOARDS:
    (FOLDER / f"{name}.json").write_text(rendered(name), encoding="utf-8")
    sys.stdout.write(f"{FOLDER.name}/{name}.json\n")
