"""Take the pictures of the docs: the Control Room of a real run of the built-in model.

`make screenshots` calls it. It needs Chromium, and about five minutes: the run goes on until a few checkpoints have
been deployed.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from ratchet.errors import RatchetError
from ratchet.home import opened
from ratchet.ledger.deployments import history
from ratchet.settings import Settings
from ratchet.views.live_state import live_state
from ratchet.web.address import announced_page

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images"
SIZE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
DEPLOYMENTS = 4
"""The pictures are taken when this many checkpoints have replaced another."""
PATIENCE_S = 900.0
COLOURS = 128
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Write all pictures; returns 1 where there is no browser."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        print("screenshots: no Chromium was found; on Debian and Ubuntu: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "run") as address, sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for name, path in pages(Path(folder) / "run").items():
            take(browser, f"{address}{path}", name)
        take(browser, f"{address}/", "now-dark", scheme="dark")
        take(browser, f"{address}/live", "live-phone", size=PHONE)
        ask(browser, address)
        browser.close()
    return 0


def pages(home: Path) -> dict[str, str]:
    """Addresses by the name of their picture."""
    champion, replaced = newest_deployment(home)
    names = ("checkpoints", "live", "data", "mistakes")
    return {
        "now": "/",
        **{name: f"/{name}" for name in names},
        "checkpoint": f"/checkpoints/{champion}",
        "compare": f"/checkpoints/compare?a={replaced}&b={champion}",
    }


@contextmanager
def running(home: Path) -> Iterator[str]:
    """The address of a run's page, once enough has been deployed."""
    environment = {**os.environ, "RATCHET_HOME": str(home), "RATCHET_WEB__PORT": "0", "RATCHET_SERVING__PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from ratchet.cli.main import app; app()", "run"], env=environment
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while newest_deployment(home, 1 + DEPLOYMENTS) == (0, 0):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("screenshots: the run has not deployed enough checkpoints.")
            time.sleep(1.0)
        yield announced_page(home / "web") or ""
    finally:
        process.terminate()
        process.wait()


def newest_deployment(home: Path, least: int = 0) -> tuple[int, int]:
    """Numbers of the champion and of the one before it; zeros before ``least`` changes of the champion."""
    try:
        with opened(Settings(home=home)) as (_, ledger), ledger.read() as session:
            found = live_state(session)
            changes = sum(entry.changes_champion for entry in history(session))
    except RatchetError:
        return 0, 0
    if found is None or changes < least:
        return 0, 0
    return found.champion.ordinal, found.replaced or 0


def take(browser: Browser, address: str, name: str, scheme: str = "light", size: dict[str, int] | None = None) -> None:
    context = browser.new_context(viewport=size or SIZE, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(address)
    page.wait_for_timeout(2000)  # charts are drawn
    save(page, name)
    context.close()


def ask(browser: Browser, address: str) -> None:
    """The Playground with an answered question."""
    context = browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{address}/playground?model=live&model=base&ask=3%2B4%3D")
    page.get_by_role("button", name="Ask").first.click()
    page.wait_for_timeout(8000)
    save(page, "playground")
    context.close()


def save(page: Page, name: str) -> None:
    """Write a picture with few colours, which a page needs, and so a third of the bytes."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS)
    picture.save(PICTURES / f"{name}.png", optimize=True)
    print(f"screenshots: {name}.png, {(PICTURES / f'{name}.png').stat().st_size // 1000} kB")


if __name__ == "__main__":
    sys.exit(main())
