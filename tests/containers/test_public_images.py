"""Published third-party images, where they differ from the replacements used in the other tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.compose import docker

from .conftest import host

if TYPE_CHECKING:
    from .conftest import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]


def test_the_store_starts_although_the_image_owns_its_data_folder(prepared: Stack) -> None:
    """SeaweedFS's image gives /data to its user 1000, and so does a new volume."""
    name = "ratchet-test-store"
    beside = {"RATCHET_PROJECT_HUB": name, "RATCHET_STORAGE_PORT": "28334"}
    hub = host(prepared.secrets.parent, prepared.address, "store", "hub.yml", **beside)
    hub.down()
    given = "touch /data/kept && chown -R 1000:1000 /data && chmod 755 /data"
    docker("run", "--rm", "--volume", f"{name}_storage:/data", "--entrypoint", "sh", "redis:7.4-bookworm", "-c", given)
    try:
        hub.up("storage")
        assert hub.containers()["storage"]["Health"] == "healthy"
    finally:
        hub.down()
