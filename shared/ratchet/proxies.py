"""Which HTTP calls may go through a proxy of the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``).

A proxy leads to the internet. It cannot reach this machine's loopback interface, and seldom the local network, so calls
to these are made directly, whether or not ``NO_PROXY`` names them.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

DIRECT: dict[str, None] = {"all://": None, "http://": None, "https://": None}
"""``mounts`` of an httpx client that uses no proxy. Unlike ``trust_env=False`` they leave SSL_CERT_FILE in effect."""

_LOCAL_DOMAINS = ("localhost", "local", "lan", "internal", "home.arpa")
"""Last labels of names that are resolved within a network, such as host.docker.internal."""


def is_local(url: str) -> bool:
    """Whether the host of a URL is on this machine or in a private network, as far as its name or address tells.

    A name without a dot, such as that of a compose service, is local.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or any(host.endswith(f".{domain}") for domain in _LOCAL_DOMAINS)
    return address.is_private or address.is_loopback or address.is_link_local


def mounts_for(url: str) -> dict[str, None] | None:
    """``mounts`` of an httpx client for one server: no proxy for a local one, that of the environment for others."""
    return DIRECT if is_local(url) else None


def configured() -> dict[str, str]:
    """The proxies of the environment by variable, as their programs read it; credentials are left out."""
    found = {}
    for name in VARIABLES:
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value:
            found[name] = value.rpartition("@")[2] if "@" in value else value
    return found
