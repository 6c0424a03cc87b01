from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.errors import PreconditionFailed, SettingsError
from ratchet.verdict.subjects import Endpoint, Folder, find_subject


def test_a_folder_is_loaded_and_an_address_is_asked(tmp_path: Path) -> None:
    assert find_subject(str(tmp_path)) == Folder(str(tmp_path), tmp_path)
    found = find_subject("https://models.example:8000/v1#small")
    assert found == Endpoint("https://models.example:8000/v1", "small")
    assert found.name == "https://models.example:8000/v1#small"


def test_an_address_without_a_model_is_completed_by_the_error() -> None:
    with pytest.raises(PreconditionFailed, match="write it as http://host:8000/v1#MODEL"):
        find_subject("http://host:8000/v1/")


def test_adapters_alone_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(PreconditionFailed, match="merge them into their base first"):
        find_subject(str(tmp_path))


def test_what_is_nowhere_is_named() -> None:
    with pytest.raises(SettingsError, match=r"the model /nowhere/at/all: no such folder"):
        find_subject("/nowhere/at/all")


def test_two_places_keep_their_answers_apart(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    subjects = [find_subject(name) for name in (str(tmp_path), str(other), "http://a#m", "http://a#n")]
    assert len({subject.digest for subject in subjects}) == 4
