"""A command as a user runs it."""

from __future__ import annotations

from ratchet.cli.main import app
from typer.testing import CliRunner, Result


def ratchet(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result
