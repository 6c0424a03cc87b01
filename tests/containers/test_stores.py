"""The library against real servers in containers: PostgreSQL, Redis with its users, and an S3 store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.bus.connection import connect
from ratchet.bus.streams import EventRecord, Streams
from ratchet.errors import ArtifactError, TransientError
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate, require_current

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
KEYS = {"key": "someone", "secret": "a-secret-of-tests"}


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The address of an S3 server with a bucket of the name ``tests``."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    container = (
        DockerContainer("chrislusf/seaweedfs:4.47")
        .with_command("mini -dir=/data -bucket=tests")
        .with_env("AWS_ACCESS_KEY_ID", KEYS["key"])
        .with_env("AWS_SECRET_ACCESS_KEY", KEYS["secret"])
        .with_exposed_ports(8333)
        .waiting_for(HttpWaitStrategy(8333, "/healthz").for_status_code(200))
    )
    with container as started:
        yield f"http://{started.get_container_host_ip()}:{started.get_exposed_port(8333)}"


def store(storage: str, cache: Path, **options: str) -> ArtifactStore:
    config = {"s3": {"addressing_style": "path"}}
    return ArtifactStore(
        "s3://tests/artifacts",
        cache,
        cache_bytes=10_000_000,
        options={"endpoint_url": storage, "config_kwargs": config, **KEYS, **options},
    )


def source(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(6_000_000))
    (folder / "sub" / "config.json").write_text("{}")
    return folder


def test_an_artifact_travels_between_hosts_and_is_verified(storage: str, tmp_path: Path) -> None:
    here, there = store(storage, tmp_path / "here"), store(storage, tmp_path / "there")
    artifact = here.publish(source(tmp_path / "source"), "checkpoint", {"by": "a test"})
    folder = there.fetch(artifact.id)
    assert (folder / "model.safetensors").read_bytes() == (artifact.path / "model.safetensors").read_bytes()
    assert artifact.id in set(there.ids())
    assert here.publish(artifact.path / "sub", "batch", {}).id != artifact.id
    there.delete(artifact.id)
    assert not here.exists(artifact.id)
    with pytest.raises(ArtifactError, match="There is no artifact"):
        store(storage, tmp_path / "third").fetch(artifact.id)


def test_an_altered_file_in_the_store_is_refused(storage: str, tmp_path: Path) -> None:
    import fsspec

    artifact = store(storage, tmp_path / "here").publish(source(tmp_path / "source"), "checkpoint", {})
    filesystem = fsspec.filesystem(
        "s3", endpoint_url=storage, config_kwargs={"s3": {"addressing_style": "path"}}, **KEYS
    )
    filesystem.pipe_file(f"tests/artifacts/{artifact.id}/sub/config.json", b"[]")
    with pytest.raises(ArtifactError, match="is damaged"):
        store(storage, tmp_path / "there").fetch(artifact.id)


def test_an_unfinished_upload_is_no_artifact_and_is_deleted_by_the_sweep(storage: str, tmp_path: Path) -> None:
    import fsspec

    here = store(storage, tmp_path / "here")
    artifact = here.publish(source(tmp_path / "source"), "checkpoint", {})
    filesystem = fsspec.filesystem(
        "s3", endpoint_url=storage, config_kwargs={"s3": {"addressing_style": "path"}}, **KEYS
    )
    filesystem.rm(f"tests/artifacts/{artifact.id}/manifest.json")
    assert artifact.id not in set(here.ids())
    assert here.sweep_garbage(older_than_s=0) >= 6_000_000


def test_a_store_that_refuses_access_is_a_transient_error(storage: str, tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="refuses"):
        store(storage, tmp_path / "here", secret="wrong").publish(source(tmp_path / "source"), "checkpoint", {})


def test_the_schema_can_be_created_in_postgres(tmp_path: Path) -> None:
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer("postgres:15-bookworm", driver="psycopg") as container:
        ledger = Ledger(container.get_connection_url())
        migrate(ledger)
        require_current(ledger)
        ledger.close()


def test_a_worker_may_publish_and_subscribe_but_not_administer() -> None:
    from redis.exceptions import NoPermissionError
    from testcontainers.community.redis import RedisContainer

    rights = "~* &* +@all -@admin -@dangerous +info +role"
    with RedisContainer("redis:7.4-bookworm") as container:
        admin = container.get_client()
        admin.execute_command("ACL", "SETUSER", "worker", "on", ">word", *rights.split())
        place = f"{container.get_container_host_ip()}:{container.get_exposed_port(6379)}"
        worker = connect(f"redis://worker:word@{place}/0")
        Streams(worker, 1000).publish([EventRecord.of(BatchQueued(batch_id="b"))])
        assert worker.info("server")["redis_version"]
        with pytest.raises(NoPermissionError):
            worker.flushall()
        worker.close()
        admin.close()
