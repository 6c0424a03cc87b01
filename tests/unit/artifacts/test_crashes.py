"""A publisher killed at any step leaves a complete artifact, or garbage that is never read."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from ratchet.artifacts import ArtifactStore
from ratchet.errors import ArtifactError, TransientError

_STEPS = frozenset({"open", "os.link", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"})


def make_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 5000)
    (folder / "config.json").write_text("{}")
    return folder


def publish_and_die(store: ArtifactStore, source: Path, fatal_step: int) -> int:
    """Publish in a forked process that kills itself before its n-th step on a file; its exit status."""
    pid = os.fork()
    if pid == 0:
        steps = 0

        def count(event: str, args: tuple[object, ...]) -> None:
            nonlocal steps
            if event in _STEPS:
                steps += 1
                if steps == fatal_step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        store.publish(source, "checkpoint", {}, consume=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_publisher_killed_before_any_step_leaves_no_half_artifact(tmp_path: Path) -> None:
    reference = ArtifactStore((tmp_path / "reference").as_uri())
    expected = reference.publish(make_model(tmp_path / "model"), "checkpoint", {}).id
    outcomes = []
    for fatal_step in range(1, 200):
        store = ArtifactStore((tmp_path / f"store-{fatal_step}").as_uri())
        source = make_model(tmp_path / f"model-{fatal_step}")
        status = publish_and_die(store, source, fatal_step)
        is_complete = store.exists(expected)
        outcomes.append(is_complete)
        if is_complete:
            assert (store.fetch(expected) / "model.safetensors").read_bytes() == b"w" * 5000
        else:
            assert (source / "model.safetensors").exists()
            with pytest.raises(ArtifactError, match="no artifact"):
                store.fetch(expected)
            assert store.publish(source, "checkpoint", {}, consume=True).id == expected
        store.sweep_garbage(older_than_s=0)
        assert list((tmp_path / f"store-{fatal_step}" / ".staging").iterdir()) == []
        assert list(store.ids()) == [expected]
        if status == 0:
            break
    assert status == 0
    assert len(outcomes) > 20
    assert False in outcomes
    assert outcomes.index(True) < len(outcomes) - 1, "some kill must have come after the artifact was complete"


def test_an_upload_without_its_manifest_is_not_an_artifact_and_is_swept(tmp_path: Path) -> None:
    url = f"memory://store-{uuid.uuid4().hex}"
    store = ArtifactStore(url, cache=tmp_path / "cache")
    model = make_model(tmp_path / "model")
    artifact = store.publish(model, "checkpoint", {})
    filesystem, root = fsspec.url_to_fs(url)
    filesystem.rm(f"{root}/{artifact.id}/manifest.json")
    assert not store.exists(artifact.id)
    with pytest.raises(ArtifactError, match="no artifact"):
        ArtifactStore(url, cache=tmp_path / "other").fetch(artifact.id)
    assert store.sweep_garbage(older_than_s=3600) == 0
    assert store.sweep_garbage(older_than_s=0) == 5002
    assert not filesystem.exists(f"{root}/{artifact.id}")
    assert store.publish(model, "checkpoint", {}).id == artifact.id
    assert store.exists(artifact.id)


def test_the_files_of_an_artifact_are_deleted_one_by_one_and_its_manifest_first(tmp_path: Path) -> None:
    """Some servers that only look like S3 refuse to delete several with one request."""

    class Single(MemoryFileSystem):  # type: ignore[misc] # fsspec has no types
        protocol = "single"
        removed: ClassVar[list[str]] = []

        def rm_file(self, path: str) -> None:
            self.removed.append(path.rpartition("/")[2])
            super().rm_file(path)

        def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
            assert not self.find(path), "several files at once"
            super().rm(path, recursive, maxdepth)

    fsspec.register_implementation("single", Single, clobber=True)
    store = ArtifactStore(f"single://store-{uuid.uuid4().hex}", cache=tmp_path / "cache")
    artifact = store.publish(make_model(tmp_path / "model"), "checkpoint", {})
    store.delete(artifact.id)
    assert Single.removed[0] == "manifest.json"
    assert len(Single.removed) == len(artifact.manifest.files) + 1
    assert list(store.ids()) == []


def test_a_sweep_does_not_delete_the_upload_of_a_running_publisher(tmp_path: Path) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())

    def lines_swept_in_the_middle() -> list[str]:
        assert store.sweep_garbage(older_than_s=0) == 0
        return ["{}", "[]"]

    def slowly() -> object:
        yield from lines_swept_in_the_middle()

    artifact = store.publish_lines(slowly(), "batch", {})  # type: ignore[arg-type]
    assert list(store.open_lines(artifact.id)) == ["{}", "[]"]


def _publish(url: str, source: Path, start: multiprocessing.synchronize.Event, ids: object) -> None:
    start.wait()
    ids.put(ArtifactStore(url).publish(source, "checkpoint", {}).id)  # type: ignore[attr-defined]


def test_concurrent_publishers_of_equal_content_get_one_artifact(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    context = multiprocessing.get_context("fork")
    start, ids = context.Event(), context.Queue()
    source = make_model(tmp_path / "model")
    rivals = [context.Process(target=_publish, args=(url, source, start, ids)) for _ in range(8)]
    for rival in rivals:
        rival.start()
    start.set()
    received = {ids.get(timeout=60) for _ in rivals}
    for rival in rivals:
        rival.join()
    store = ArtifactStore(url)
    assert received == set(store.ids())
    assert len(received) == 1
    assert list((tmp_path / "store" / ".staging").iterdir()) == []
    store.fetch(received.pop())


def test_a_full_disk_names_the_folder_and_the_bytes(tmp_path: Path) -> None:
    source = tmp_path / "weights.safetensors"
    source.write_bytes(b"w" * 200_000)
    pid = os.fork()
    if pid == 0:
        os._exit(_refused_for_lack_of_room(tmp_path, source))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(ArtifactStore((tmp_path / "store").as_uri()).ids()) == []


def _refused_for_lack_of_room(tmp_path: Path, source: Path) -> int:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        ArtifactStore((tmp_path / "store").as_uri()).publish(source, "checkpoint", {})
    except TransientError as error:
        return 0 if str(tmp_path / "store") in str(error) and "200,000 bytes" in str(error) else 2
    return 1
