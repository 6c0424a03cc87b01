"""The page Data in a browser: a file is dropped, checked, and added."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Page, expect
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import TaskRow
from ratchet.settings import Settings

from tests.support.pages import Served
from tests.support.user_tasks import DATA
from tests.support.visits import Visit

pytestmark = pytest.mark.slow

BABI = DATA / "babi_qa1_100.jsonl"
DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.querySelector("main").dispatchEvent(
      new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page over an empty ledger, to which each test adds rows of its own."""
    settings = Settings(home=tmp_path_factory.mktemp("data") / "home")
    with closing(Ledger(settings.ledger_url)) as ledger:
        migrate(ledger)
    served = Served(settings.home)
    yield served
    served.stop()


@pytest.fixture
def page(served: Served, visit: Visit) -> tuple[Page, Served]:
    return visit(f"{served.url}/data"), served


def test_a_file_is_dropped_on_the_page_checked_and_added(page: tuple[Page, Served]) -> None:
    tab, served = page
    tab.evaluate(DROP, [BABI.name, BABI.read_text()])
    tab.wait_for_url("**/data/jobs/*")
    expect(tab.get_by_text("100 different rows of babi_qa1_100.jsonl")).to_be_visible()
    checked = tab.url
    tab.get_by_role("button", name="Add these rows").click()
    expect(tab.get_by_role("heading", name="The rows were added")).to_be_visible()
    with closing(served.ledger) as ledger, ledger.read() as session:
        assert session.get_one(TaskRow, "babi_qa1").source == BABI.name
    tab.get_by_role("link", name="babi_qa1", exact=True).click()
    expect(tab.get_by_role("heading", name="Task babi_qa1")).to_be_visible()
    tab.goto(checked)
    expect(tab.get_by_role("link", name="it was added")).to_be_visible()


def test_a_file_with_a_hostile_name_is_chosen_and_refused(page: tuple[Page, Served]) -> None:
    tab, _ = page
    name = '<img src=x onerror="document.title=1">.jsonl'
    tab.locator("#drop-file").set_input_files({"name": name, "mimeType": "text/plain", "buffer": b"no row at all\n"})
    tab.wait_for_url("**/data/jobs/*")
    expect(tab.get_by_role("heading", name="It cannot be added")).to_be_visible()
    expect(tab.get_by_text("this is no file of rows").first).to_be_visible()
    assert tab.locator("main img").count() == 0
    assert tab.title() != "1"


def test_of_several_files_each_has_its_own_result(page: tuple[Page, Served]) -> None:
    tab, _ = page
    files = [{"name": f"{n}.csv", "mimeType": "text/csv", "buffer": b"question,answer\n1+1,2\n"} for n in (1, 2)]
    tab.locator("#drop-file").set_input_files(files)  # type: ignore[arg-type]
    expect(tab.locator("#uploads").get_by_role("link", name="See the result")).to_have_count(2)
    tab.locator("#uploads a").first.click()
    expect(tab.get_by_role("heading", name="1.csv")).to_be_visible()
