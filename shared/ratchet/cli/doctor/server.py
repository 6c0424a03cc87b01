"""The inference server: its port, whether it answers, and whether it obeys this ledger."""

from __future__ import annotations

from ratchet.bus.ports import is_free, port_owner
from ratchet.cli.doctor.finding import Finding
from ratchet.cli.doctor.reach import Place, hindrance
from ratchet.cli.doctor.stores import opened
from ratchet.errors import TransientError
from ratchet.ledger.ledger import counter_value
from ratchet.run import run_lock
from ratchet.serving.client import EmbeddedServerClient
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings


def server(settings: Settings) -> Finding:
    port, running = settings.serving.port, run_lock.find_run(settings.home)
    if settings.serving.url is not None:
        return _obedience(settings, f"of its own at {settings.serving.url}", is_needed=running is not None)
    if running is not None:
        return _obedience(settings, f"belongs to the run, {running}", is_needed=True)
    if port and not is_free(port):
        return Finding("server", "bad", f"port {port} is taken by {port_owner(port)}: set serving.port to another one")
    return Finding("server", "ok", f"port {port or 'of any number'} is free")


def _obedience(settings: Settings, text: str, *, is_needed: bool) -> Finding:
    """Whether a running server answers, knows the token of /admin, and obeys this ledger.

    The ledger's fencing tokens are lower after a restore from a backup. One that has come to a standstill says so
    and is started afresh; where it says so again and again, its log has why. A run that is going on needs it.
    """
    try:
        with EmbeddedServerClient.from_settings(settings.serving, settings.serving_home) as client:
            highest = client.health().highest_token
            client.ping()
    except TransientError as error:
        place = Place.of(settings.serving.url or announced_url(settings.serving_home) or settings.serving.base_url)
        why = (hindrance(place) if place is not None else None) or str(error)
        found = f"{text}; it does not answer: {why}"
        if not is_needed:
            return Finding("server", "note", found)
        return Finding("server", "bad", f"{found}. One that has only just been started may need a minute; see its log")
    with opened(settings) as ledger, ledger.read() as session:
        given = counter_value(session, "fencing")
    if highest > given:
        return Finding(
            "server",
            "bad",
            f"{text}; it obeys no fencing token below {highest}, and this ledger is at {given}: was it restored from "
            "a backup? `ratchet fence --reason …` lets it have its say again, once no other deployer is at work",
        )
    return Finding("server", "ok", text)
