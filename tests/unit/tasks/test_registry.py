from __future__ import annotations

import subprocess
import sys

import pytest
from ratchet.errors import UnknownPlugin
from ratchet.tasks import registry


def test_knows_its_own_families() -> None:
    assert {"chain_sum", "reverse", "sort_digits", "rg:<dataset>"} <= set(registry.known())


@pytest.mark.parametrize("name", ["chain_sums", "", "rg", "chain_sum:2", "rg:no_such_dataset", "rg:composite"])
def test_an_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(UnknownPlugin, match=r"Known: .*chain_sum"):
        registry.get(name)


def test_find_is_none_only_for_names_that_no_plugin_claims() -> None:
    assert registry.find("gsm8k") is None
    assert registry.find(None) is None
    with pytest.raises(UnknownPlugin):
        registry.find("rg:no_such_dataset")


def test_grader_id_names_versions_once_in_order() -> None:
    assert registry.grader_id(["reverse", "chain_sum", "reverse", "gsm8k"]) == "chain_sum@1+reverse@1+declared@3"


def test_the_library_is_imported_only_when_asked_for() -> None:
    program = (
        "import sys; from ratchet.tasks import registry, graders; registry.known(); registry.get('reverse');"
        "sys.exit(any(name in sys.modules for name in ('reasoning_gym', 'torch', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
