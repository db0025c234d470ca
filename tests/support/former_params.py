"""A params file of an earlier schema, and `fettle migrate` upon it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fettle.cli.commands import app
from fettle.errors import ParamsError

ROOT = Path(__file__).resolve().parents[2]
# as the last version before schema 2 had it
OLD = ROOT / "tests" / "golden" / "params_schema_1.yaml"


def migrate(*files: Path) -> str:
    """Run the command; return what it says. Its own errors come out as they are."""
    done = CliRunner().invoke(app, ["migrate", *map(str, files)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ParamsError) as caught:
        call()
    return str(caught.value)
