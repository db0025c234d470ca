"""Write the digests that the other stages depend on: what lies outside the artefacts.

reads     the installed code, the data, the user's own model, the machine, params.yaml
writes    inputs/code/STAGE[/TARGET].json (fettle/staleness/code_digest.py), inputs/source.json,
          inputs/model.json, inputs/machine.json: each only when its content changed
params    all: they say which source, model and plug-ins are asked for
refuses   params.yaml with a problem; data that is missing; a licence that is not in
          verdict.licences.allow

DVC asks this stage at every `dvc repro`, as nothing in the tree tells it that a package was
upgraded or a photo replaced. `fettle run` does the same in its own process before it asks DVC
what is stale, so for its flow this is no stage. It makes no sealed artefact.
"""

from __future__ import annotations

import os
from pathlib import Path

from fettle import params, params_migration
from fettle import project as projects
from fettle.evaluation import licence_check


def write(tree: Path) -> None:
    """Write what changed below `tree`/inputs."""
    params_migration.refuse_former_graph(tree)
    root = Path(os.environ.get("FETTLE_ROOT", tree))
    here = projects.Project(root, tree)
    settings = params.load(tree / "params.yaml")
    projects.refresh_inputs(here, settings)
    licence_check.refuse(tree, settings)
