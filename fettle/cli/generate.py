"""Generate a user's project from this repository's own graph: nothing about it is stated twice.

dvc.yaml of the new project is the repository's, with the source files of each stage replaced by
one digest of the installed code (`inputs/code/STAGE.json`, see fettle/code_digest.py).
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from ruamel.yaml import YAML

from fettle import code_digest


def write_project(folder: Path, *, photos: bool) -> None:
    """Write params.yaml, dvc.yaml, bentos and the CI file into `folder`.

    `photos` takes the params for a folder of photos, else the digits default.
    """
    template = code_digest.template()
    folder.mkdir(parents=True, exist_ok=True)
    params = template / ("photos.yaml" if photos else "params.yaml")
    (folder / "params.yaml").write_text(params.read_text())
    (folder / "dvc.yaml").write_text(project_graph((template / "dvc.yaml").read_text()))
    shutil.copytree(
        template / "bentos", folder / "bentos", ignore=shutil.ignore_patterns("__pycache__")
    )
    workflow = folder / ".github" / "workflows" / "fettle.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text((template / "ci.yml").read_text())


def project_graph(text: str) -> str:
    """Rewrite the repository's dvc.yaml for a project without its sources."""
    yaml = YAML(typ="rt")
    yaml.width = 100
    graph = yaml.load(text)
    for name, stage in graph["stages"].items():
        kept = [dep for dep in stage["deps"] if not code_digest.is_code(dep)]
        stage["deps"] = [*kept, f"inputs/code/{name}.json"]
    out = io.StringIO()
    yaml.dump(graph, out)
    head = "# The artefact graph of this project; `fettle run` and `dvc repro` both run it.\n"
    body = out.getvalue()
    return head + body[body.index("stages:") :]
