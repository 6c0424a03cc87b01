"""Which passwords are no protection."""

from __future__ import annotations

from collections import Counter

from sqlalchemy.engine import make_url

from ratchet.settings import Settings
from ratchet.settings.stores import read_secret

LEAST_PASSWORD = 12
GUESSES = frozenset({"admin", "changeme", "password", "postgres", "ratchet", "redis", "secret"})


def is_weak(password: str, user: str | None = None) -> bool:
    """Whether it is short, the name of its user, or made of a word that everybody tries."""
    bare = password.casefold().rstrip("0123456789!")
    return len(password) < LEAST_PASSWORD or password == user or bare in GUESSES or len(set(password)) < 4


def weak_passwords(settings: Settings) -> list[str]:
    """The settings whose password is weak. Raises SettingsError for the file of one that cannot be read."""
    weak = []
    urls = {"ledger.url": settings.ledger.address, "redis.url": settings.redis.address}
    for name, url in urls.items():
        parts = make_url(url) if url is not None else None
        if parts is not None and parts.host is not None and is_weak(str(parts.password or ""), parts.username):
            weak.append(name)
    keys = _keys(settings)
    weak.extend(name for name, secret in keys.items() if is_weak(secret))
    return weak


def shared_passwords(settings: Settings) -> list[str]:
    """The settings that have one password together."""
    keys = _keys(settings)
    for name, url in {"ledger.url": settings.ledger.address, "redis.url": settings.redis.address}.items():
        if url is not None and (password := make_url(url).password):
            keys[name] = str(password)
    twice = {secret for secret, count in Counter(keys.values()).items() if count > 1}
    return sorted(name for name, secret in keys.items() if secret in twice)


def _keys(settings: Settings) -> dict[str, str]:
    keys = {}
    if settings.artifacts.secret_key_file is not None:
        keys["artifacts.secret_key_file"] = read_secret(settings.artifacts.secret_key_file)
    if settings.serving.admin_token is not None:
        keys["serving.admin_token"] = settings.serving.admin_token.get_secret_value()
    elif settings.serving.admin_token_file is not None:
        keys["serving.admin_token_file"] = read_secret(settings.serving.admin_token_file)
    return keys
