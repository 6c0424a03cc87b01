"""Which failures of a remote store are the surroundings', not the artifact's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ratchet.errors import RatchetError, TransientError

_BUGS = (AttributeError, NameError, TypeError, AssertionError, NotImplementedError)
"""What no store raises for being away: waited out as trouble of the surroundings, it would be waited out for ever."""


@contextmanager
def remote_trouble(url: str) -> Iterator[None]:
    """Whatever a remote store raises, except that a file is absent or that the code is wrong, is a TransientError.

    The libraries behind fsspec have error trees of their own, so there is no narrower base to catch.
    """
    try:
        yield
    except (RatchetError, FileNotFoundError, *_BUGS):
        raise
    except Exception as error:
        raise TransientError(
            f"The artifact store {url} is out of reach or refuses: {type(error).__name__}: {error}. "
            "Check its address and credentials; the work is tried again by itself."
        ) from error
