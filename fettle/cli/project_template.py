"""Template of a user's project: the repository's own files, copied as they are.

A wheel carries them in fettle/cli/template (tools/build_py.py puts them there); in a checkout they
are taken from where they lie.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path

from fettle.errors import OurFault

HERE = Path(__file__).parent
# The template's name, and where that lies in a checkout (tools/build_py.py has the same).
IN_CHECKOUT = {
    # not dvc.yaml: DVC takes any below a project, in a venv too, for a part of it
    "graph.yaml": "dvc.yaml",
    "params.yaml": "params.yaml",
    "photos.yaml": "examples/photos.yaml",
    "bentos": "bentos",
    "ci.yml": "fettle/cli/template/ci.yml",
    "gitlab.yml": "fettle/cli/template/gitlab.yml",
}
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
# dvc.lock is the user's to commit: with a DVC remote, a clone then restores the model
IGNORED = ".fettle/\nartifacts/\ninputs/\nrecords/\nreleases/\nreport/\n__pycache__/\n"


def template(name: str) -> Path:
    """Find a file or folder of the template."""
    for path in (HERE / "template" / name, HERE.parents[1] / IN_CHECKOUT[name]):
        if path.exists():
            return path
    raise OurFault(f"this installation of fettle has no template {name}", fix="install it again")


def make_project(folder: Path, *, data: Path | None) -> str:
    """Make a project in a new or empty folder, or nothing; return its release's name.

    `data` is remembered as the place of its images; without, it takes the digits.
    """
    from fettle import project as projects

    created = not folder.exists()
    try:
        write_project(folder, photos=data is not None)
        name = name_release(folder)
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text(DVC_CONFIG)
        (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (folder / ".dvcignore").write_text("__pycache__\n.fettle\n.venv\nreleases\n")
        (folder / ".gitignore").write_text(IGNORED)
        projects.tell_dvc_of_git(folder)
        if data is not None:
            projects.set_local(folder, "data", data)
    except BaseException:
        if created:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return name


def write_project(folder: Path, *, photos: bool) -> None:
    """Write params.yaml, dvc.yaml and bentos into `folder`.

    `photos` takes the params for a folder of photos, else the digits default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template("photos.yaml" if photos else "params.yaml"), folder / "params.yaml")
    shutil.copyfile(template("graph.yaml"), folder / "dvc.yaml")
    shutil.copytree(
        template("bentos"), folder / "bentos", ignore=shutil.ignore_patterns("__pycache__")
    )


def name_release(folder: Path) -> str:
    """Name the release after the project's folder in its params.yaml; return that name."""
    name = release_name(folder.resolve().name)
    file = folder / "params.yaml"
    text, count = re.subn(
        r"^(release:\n  name: )\S+", rf"\g<1>{name}", file.read_text(), count=1, flags=re.M
    )
    if count != 1:
        raise OurFault("the template of params.yaml has no release.name")
    file.write_text(text)
    return name


def release_name(folder: str) -> str:
    """Turn a folder's name into one that BentoML takes: "Obst & Gemüse" is "obst-gemuse"."""
    plain = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")
    if not re.match("[a-z]", name):
        name = f"release-{name}"
    name = name[:63].strip("-_")
    # YAML 1.1 reads these words as true, false and null
    return (
        f"release-{name}"
        if name in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
        else name
    )
