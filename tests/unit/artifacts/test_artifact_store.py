"""Publishing, reading and refusing artifacts, on a local disk and on a remote store."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest
from ratchet.artifacts import Artifact, ArtifactStore
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.errors import ArtifactError, SettingsError
from ratchet.settings import Settings


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(5000))
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


def another(store: ArtifactStore, cache: Path) -> ArtifactStore:
    """The same store as another process sees it: nothing remembered, an empty cache."""
    return ArtifactStore(store.url, cache=cache)


def published(store: ArtifactStore, model: Path) -> Artifact:
    return store.publish(model, "checkpoint", {"job": 7})


def test_a_published_artifact_is_fetched_with_its_provenance(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    artifact = published(store, model)
    reader = another(store, tmp_path / "other-cache")
    folder = reader.fetch(artifact.id)
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert (folder / "tokenizer" / "vocab.json").read_text() == "{}"
    manifest = reader.manifest(artifact.id)
    assert manifest.kind == "checkpoint"
    assert manifest.provenance == {"job": 7}
    assert [file.path for file in manifest.files] == ["model.safetensors", "tokenizer/vocab.json"]
    assert reader.size_bytes(artifact.id) == 5002


def test_what_an_artifact_requires_is_fetched_beside_it(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    base = published(store, model)
    (tmp_path / "adapters.safetensors").write_bytes(b"1")
    artifact = store.publish(tmp_path / "adapters.safetensors", "checkpoint", {}, requires=[base.id])
    folder = another(store, tmp_path / "other-cache").fetch(artifact.id)
    assert (folder.parent / base.id / "model.safetensors").exists()
    store.delete(base.id)
    with pytest.raises(ArtifactError) as refused:
        another(store, tmp_path / "empty-cache").fetch(artifact.id)
    assert refused.value.artifact == base.id


def test_equal_content_is_one_artifact(store: ArtifactStore, model: Path) -> None:
    first = published(store, model)
    second = store.publish(model, "checkpoint", {"job": 8})
    assert second.id == first.id
    assert second.manifest.provenance == {"job": 7}
    assert list(store.ids()) == [first.id]


def test_one_changed_byte_is_another_artifact(store: ArtifactStore, model: Path) -> None:
    first = published(store, model)
    (model / "tokenizer" / "vocab.json").write_text("[]")
    assert published(store, model).id != first.id


def test_lines_stream_in_and_out(store: ArtifactStore) -> None:
    lines = [json.dumps({"text": f"é {n} \u2028"}, ensure_ascii=False) for n in range(1000)]
    artifact = store.publish_lines((line for line in lines), "batch", {"generator": "chain_sum"})
    assert list(store.open_lines(artifact.id)) == lines


def test_a_line_break_inside_a_line_is_refused_with_its_number(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"rows.jsonl:2"):
        store.publish_lines(["{}", "{\n}"], "batch", {})
    assert list(store.ids()) == []


def test_a_deleted_artifact_is_gone_and_deleting_it_again_is_fine(store: ArtifactStore, model: Path) -> None:
    artifact = published(store, model)
    assert store.exists(artifact.id)
    store.delete(artifact.id)
    store.delete(artifact.id)
    assert not store.exists(artifact.id)
    with pytest.raises(ArtifactError, match="no artifact"):
        store.fetch(artifact.id)


def test_an_unknown_file_name_lists_the_known_ones(store: ArtifactStore) -> None:
    artifact = store.publish_lines(["{}"], "batch", {})
    with pytest.raises(ArtifactError, match=r"no file items.jsonl; it has rows.jsonl"):
        next(store.open_lines(artifact.id, "items.jsonl"))


@pytest.mark.parametrize("wrong", ["", "../../etc", "A" * 64])
def test_an_invalid_artifact_id_is_refused(store: ArtifactStore, wrong: str) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact id"):
        store.fetch(wrong)


def test_an_empty_folder_is_not_published(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="has no file to publish"):
        store.publish(tmp_path / "empty", "report", {})


def test_an_artifact_is_not_published_inside_another(store: ArtifactStore, model: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json is reserved by the store"):
        store.publish(published(store, model).path, "checkpoint", {})


def test_an_unknown_protocol_names_the_setting() -> None:
    with pytest.raises(SettingsError, match=r"artifacts\.url"):
        ArtifactStore("gopher://somewhere")


def test_a_consumed_folder_is_linked_not_copied_and_removed(local: ArtifactStore, model: Path) -> None:
    inode = (model / "model.safetensors").stat().st_ino
    artifact = local.publish(model, "checkpoint", {}, consume=True)
    assert (artifact.path / "model.safetensors").stat().st_ino == inode
    assert not model.exists()


def test_a_consumed_file_is_linked_and_removed(local: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("{}\n")
    inode = source.stat().st_ino
    artifact = local.publish(source, "record", {}, consume=True)
    assert (artifact.path / "rows.jsonl").stat().st_ino == inode
    assert not source.exists()


def test_writable_files_that_stay_are_copied_and_read_only_ones_linked(local: ArtifactStore, model: Path) -> None:
    (model / "tokenizer" / "vocab.json").chmod(0o444)
    artifact = published(local, model)
    kept, shared = "model.safetensors", "tokenizer/vocab.json"
    assert (artifact.path / kept).stat().st_ino != (model / kept).stat().st_ino
    assert (artifact.path / shared).stat().st_ino == (model / shared).stat().st_ino
    assert (model / kept).stat().st_mode & 0o200


def test_a_symlink_is_copied_by_its_content(local: ArtifactStore, model: Path) -> None:
    (model / "linked.json").symlink_to(model / "tokenizer" / "vocab.json")
    artifact = local.publish(model, "checkpoint", {}, consume=True)
    assert not (artifact.path / "linked.json").is_symlink()
    assert (artifact.path / "linked.json").read_text() == "{}"


def test_other_file_systems_are_copied(local: ArtifactStore, tmp_path: Path) -> None:
    disks = [disk for disk in (Path("/dev/shm"), Path("/var/tmp")) if disk.is_dir()]
    others = [disk for disk in disks if disk.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("needs a second disk")
    source = others[0] / f"ratchet-{uuid.uuid4().hex}.jsonl"
    source.write_text("{}\n")
    artifact = local.publish(source, "batch", {}, consume=True)
    assert (artifact.path / source.name).read_text() == "{}\n"
    assert not source.exists()


def test_the_cache_of_a_remote_store_evicts_the_least_recently_used(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store = ArtifactStore(f"memory://store-{uuid.uuid4().hex}", cache=cache)
    old, used, new = (store.publish_lines([name * 1000], "batch", {}).id for name in "abc")
    for age_s, artifact_id in enumerate([new, used, old]):
        os.utime(cache / artifact_id, (1e9 - age_s, 1e9 - age_s))
    store.fetch(old)
    assert store.trim_cache(most_bytes=3000, unused_for_s=60) > 1000
    assert [(cache / artifact_id).exists() for artifact_id in (old, used, new)] == [True, False, True]
    assert store.trim_cache(most_bytes=0, unused_for_s=60) > 1000
    assert (cache / old).exists()
    assert list(store.open_lines(new)) == ["c" * 1000]


def test_a_local_store_has_no_cache_to_trim(local: ArtifactStore, model: Path) -> None:
    artifact = published(local, model)
    assert local.trim_cache(most_bytes=0, unused_for_s=0) == 0
    assert local.fetch(artifact.id) == artifact.path


def test_published_files_are_read_only_and_for_this_user(store: ArtifactStore, model: Path) -> None:
    os.umask(0o022)
    folder = store.fetch(published(store, model).id)
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o400}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_files_of_a_store_that_a_group_may_write_to_are_for_the_group(local: ArtifactStore, model: Path) -> None:
    staging = Path(local.url.removeprefix("file://")) / ".staging"
    staging.mkdir(parents=True)
    staging.chmod(0o770)
    file = local.fetch(published(local, model).id) / "model.safetensors"
    assert file.stat().st_mode & 0o777 == 0o440
    assert file.parent.stat().st_mode & 0o777 == 0o770


@pytest.mark.parametrize(("cache_gb", "is_kept"), [(1.0, True), (1e-6, False)])
def test_the_cache_size_of_a_remote_store_follows_the_setting(tmp_path: Path, cache_gb: float, is_kept: bool) -> None:
    url = f"memory://store-{uuid.uuid4().hex}"

    def store() -> ArtifactStore:
        return artifact_store(Settings(home=tmp_path, artifacts={"url": url, "cache_gb": cache_gb}))

    old = store().publish_lines(["a" * 1000], "batch", {})
    os.utime(old.path, (1e9, 1e9))
    store().publish_lines(["b" * 1000], "batch", {})
    assert old.path.exists() == is_kept
