"""A home folder, a user's project in it, and the command line, for end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.project import QUIET

WITNESS = Path(__file__).resolve().parent / "witness"


@dataclass(frozen=True)
class Box:
    """A home, a project in it, and the command line."""

    home: Path
    project: Path

    @property
    def witness(self) -> Path:
        """The file with every attempt to reach beyond this machine."""
        return self.home / "beyond-loopback.log"

    def environment(self) -> dict[str, str]:
        """Return an environment with nothing of this machine's user in it."""
        others = ("XDG_", "FETTLE_", "PREFECT_", "MLFLOW_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(others)}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        bin_folder = str(Path(sys.executable).parent)
        return {
            **kept,
            **QUIET,
            "HOME": str(self.home),
            "BENTOML_HOME": str(self.home / "bentoml"),
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "80",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(WITNESS), kept.get("PYTHONPATH")])),
            "FETTLE_WITNESS": str(self.witness),
        }

    def command(self, *words: str) -> list[str]:
        """Return the argv of `fettle WORDS`."""
        return [sys.executable, "-m", "fettle.cli.main", *words]

    def fettle(
        self, *words: str, cwd: Path | None = None, before: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run `fettle WORDS` in the project; `before` is put in front of the command."""
        return subprocess.run(
            [*before, *self.command(*words)],
            cwd=cwd or self.project,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def report(self) -> dict[str, Any]:
        """Read `fettle report --json`."""
        done = self.fettle("report", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def set_params(path: Path, settings: dict[str, str]) -> None:
    """Lay settings over a params file, as an editor would."""
    from ruamel.yaml import YAML

    from fettle.params import compose

    doc = compose(path, [f"{key}={value}" for key, value in settings.items()])
    with path.open("w") as handle:
        YAML(typ="rt").dump(doc, handle)
