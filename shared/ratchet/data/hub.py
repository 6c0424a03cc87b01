"""Data sets of the Hugging Face hub, ``hf:ORG/NAME[:CONFIG][@SPLIT]``: which files of the repository hold the rows.

The files are downloaded into the hub's own cache; offline (HF_HUB_OFFLINE) only that is read. No code of a repository
is run. It does not read rows.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from ratchet.data.file_kinds import is_rows_file
from ratchet.errors import DataError, RatchetError, SettingsError

HUB: Final = "hf:"
_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+))?")
_KNOWN_SPLITS: Final = ("train", "training", "test", "testing", "valid", "validation", "dev", "eval")
_CARD = "README.md"


class HubName(NamedTuple):
    """A data set of the hub; an empty ``config`` is the only one that there is."""

    repo: str
    config: str
    split: str

    @classmethod
    def parse(cls, text: str) -> HubName:
        found = _NAME.fullmatch(text)
        if found is None:
            raise SettingsError(f"{text!r} is not hf:ORG/NAME[:CONFIG][@SPLIT], as in hf:openai/gsm8k:main@train.")
        return cls(found["repo"], found["config"] or "", found["split"] or "train")


def hub_files(text: str) -> list[tuple[str, Path]]:
    """Names and local paths of the files that hold the rows, downloaded where needed.

    Raises DataError where there are none, or the hub cannot be reached and the cache lacks them.
    """
    name = HubName.parse(text)
    try:
        import huggingface_hub
    except ImportError as error:
        raise SettingsError("hf: names need huggingface_hub: `pip install huggingface_hub`.") from error
    try:
        return _downloaded(huggingface_hub, name)
    except RatchetError:
        raise
    except Exception as error:  # of the hub, of the HTTP library of its version, of the cache: they share no base
        raise DataError(
            f"{text} cannot be had from the hub ({_first_line(error)}): check the name and the network, log in with "
            "`hf auth login` where it is gated, or give its files as a local folder."
        ) from error


def choose_files(files: list[str], name: HubName, card: dict[str, Any]) -> list[str]:
    """The files of the configuration and split: as the data set's card lists them, else by their names.

    Raises DataError that lists the configurations or splits there are.
    """
    rows = sorted(file for file in files if is_rows_file(file) and not file.startswith("."))
    by_split = _by_card(rows, name, card) or _by_name(rows, name)
    if not by_split:
        raise DataError(f"{HUB}{name.repo} has no files with rows: JSONL, JSON, CSV, TSV, Parquet or Arrow.")
    if name.split in by_split:
        return by_split[name.split]
    if set(by_split) == {""}:
        return by_split[""]
    raise DataError(
        f"{HUB}{name.repo} has no split {name.split!r}; there are {', '.join(sorted(by_split))}: "
        f"name one, as in {HUB}{name.repo}{':' + name.config if name.config else ''}@{sorted(by_split)[0]}."
    )


def _by_card(rows: list[str], name: HubName, card: dict[str, Any]) -> dict[str, list[str]]:
    """Splits with their files, from the patterns in ``configs`` of the card; empty where it lists none."""
    configs = [each for each in card.get("configs") or [] if isinstance(each, dict) and each.get("data_files")]
    if not configs:
        return {}
    by_name = {str(each.get("config_name", "default")): each for each in configs}
    default = next((key for key, each in by_name.items() if each.get("default") or key == "default"), None)
    config = name.config or (next(iter(by_name)) if len(by_name) == 1 else default)
    if config not in by_name:
        raise _no_config(name, list(by_name))
    listed = by_name[config]["data_files"]
    if isinstance(listed, str) or (isinstance(listed, list) and all(isinstance(each, str) for each in listed)):
        listed = [{"split": "train", "path": listed}]
    splits: dict[str, list[str]] = {}
    for entry in listed:
        patterns = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
        splits[str(entry["split"])] = [file for file in rows if any(fnmatch(file, each) for each in patterns)]
    return {split: files for split, files in splits.items() if files}


def _by_name(rows: list[str], name: HubName) -> dict[str, list[str]]:
    """Splits with their files, from the names of folders and files."""
    folders = sorted({PurePosixPath(file).parts[0] for file in rows if "/" in file})
    configs = [folder for folder in folders if folder not in ("data", *_KNOWN_SPLITS)]
    if name.config:
        rows = [file for file in rows if name.config in PurePosixPath(file).parts[:-1]]
        if not rows:
            raise _no_config(name, configs)
    elif len(configs) > 1:
        raise _no_config(name, configs)
    splits: dict[str, list[str]] = {}
    for file in rows:
        words = re.split(r"[^a-z]+", file.removeprefix(f"{name.config}/").casefold())
        split = next((word for word in reversed(words) if word in _KNOWN_SPLITS or word == name.split), "")
        splits.setdefault(split, []).append(file)
    return splits


def _no_config(name: HubName, known: list[str]) -> DataError:
    if not known:
        return DataError(f"{HUB}{name.repo} has no configuration {name.config!r}, and no other: leave it out.")
    what = f"has no configuration {name.config!r}; it" if name.config else "has several configurations; it"
    listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return DataError(f"{HUB}{name.repo} {what} has {listed}: name one, as in {HUB}{name.repo}:{known[0]}.")


def _downloaded(hub: Any, name: HubName) -> list[tuple[str, Path]]:
    from huggingface_hub import constants

    repo: dict[str, Any] = {"repo_id": name.repo, "repo_type": "dataset"}
    if constants.HF_HUB_OFFLINE:
        folder = Path(hub.snapshot_download(**repo, local_files_only=True))
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        chosen = choose_files(files, name, _card(hub, folder / _CARD))
        return [(file, folder / file) for file in chosen]
    files = hub.HfApi().list_repo_files(**repo)
    card = _card(hub, Path(hub.hf_hub_download(filename=_CARD, **repo))) if _CARD in files else {}
    return [(file, Path(hub.hf_hub_download(filename=file, **repo))) for file in choose_files(files, name, card)]


def _card(hub: Any, file: Path) -> dict[str, Any]:
    return (hub.metadata_load(file) or {}) if file.is_file() else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
