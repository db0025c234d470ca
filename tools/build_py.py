"""Ship the files that `fettle init` copies: the wheel's template is made of the repository's own.

setuptools takes no file from outside a package, and a link or a copy in the tree would be a second
truth. An editable install needs nothing: fettle/cli/project_template.py finds the files where they
lie.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command import build_py

ROOT = Path(__file__).resolve().parents[1]
# The template's name of a file or folder, and where it lies in the repository.
SHIPPED = {
    # not dvc.yaml: DVC takes any below a project, in a venv too, for a part of it
    "graph.yaml": "dvc.yaml",
    "params.yaml": "params.yaml",
    "photos.yaml": "examples/photos.yaml",
    "bentos": "bentos",
}


class BuildPy(build_py.build_py):
    """build_py that also copies SHIPPED into fettle/cli/template."""

    def run(self) -> None:
        """Build as usual, then copy, unless the install is editable."""
        super().run()
        if not self.editable_mode:
            for source, target in self._copies():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """List what was built, the copies among it."""
        return [
            *super().get_outputs(include_bytecode),
            *(str(target) for _, target in self._copies()),
        ]

    def _copies(self) -> list[tuple[Path, Path]]:
        folder = Path(self.build_lib) / "fettle" / "cli" / "template"
        found = []
        for name, place in SHIPPED.items():
            source = ROOT / place
            files = sorted(source.rglob("*")) if source.is_dir() else [source]
            found += [
                (file, folder / name / file.relative_to(source))
                for file in files
                if file.is_file() and "__pycache__" not in file.parts
            ]
        return found
