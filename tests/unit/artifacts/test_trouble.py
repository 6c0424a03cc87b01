from __future__ import annotations

import pytest
from ratchet.artifacts.remote_artifacts import remote_trouble
from ratchet.errors import TransientError


def test_an_unreachable_remote_is_trouble_of_the_surroundings() -> None:
    with pytest.raises(TransientError, match="s3://bucket"), remote_trouble("s3://bucket"):
        raise TimeoutError("no answer")


def test_an_error_of_the_code_is_not_waited_out() -> None:
    with pytest.raises(TypeError, match="not a path"), remote_trouble("s3://bucket"):
        raise TypeError("not a path")
