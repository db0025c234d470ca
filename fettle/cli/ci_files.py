"""CI files of a project: GitHub's and GitLab's, the steps that both run, and a bare repository's
hook.

Both services call the same two scripts, so that they can be run by hand in a fresh clone.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from fettle import manifest, plugins
from fettle.adapters.push_queue import OnPush, PushQueue, PushSettings, outside_git
from fettle.cli.project_template import template
from fettle.errors import DataError, ProjectError, UserError
from fettle.params import Params
from fettle.project import Project

MARK = "written by `fettle ci init`"
INSTALL = """\
#!/bin/sh
# {mark}: installs fettle from the wheel of this folder, if it is the one that is named here.
set -e
cd "$(dirname "$0")"
echo "{digest}  {wheel}" | sha256sum -c -
python -m pip install --quiet "./{wheel}[train,openvino]"
"""
RUN = """\
#!/bin/sh
# {mark}: runs what changed, and leaves the report in comment.md. The exit code is the run's.
set -e
cd "$(dirname "$0")/.."
if [ -n "$FETTLE_SIGNING_PEM" ]; then # a secret: the key that the releases are signed with
  FETTLE_SIGNING_KEY="$(mktemp -d)/key.pem" && export FETTLE_SIGNING_KEY
  trap 'rm -rf "$(dirname "$FETTLE_SIGNING_KEY")"' EXIT
  (umask 077 && printf '%s\\n' "$FETTLE_SIGNING_PEM" > "$FETTLE_SIGNING_KEY")
  openssl pkey -in "$FETTLE_SIGNING_KEY" -pubout -out "${{FETTLE_SIGNING_KEY%.pem}}.pub"
fi
code=0
{pull}[ $code -ne 0 ] || fettle run || code=$?
fettle report --markdown > comment.md || echo "The run did not begin." > comment.md
fettle ui --stop || true
exit $code
"""
HOOK = """\
#!/bin/sh
# {mark}: queues each pushed commit for a run of its own, and never fails or delays a push.
{python} -m fettle.cli.main ci receive "$PWD" >> "$PWD/fettle/hook.log" 2>&1 || true
"""


def tracked_data(project: Project, params: Params) -> list[str]:
    """Return the DVC files that bring the project's data into a fresh clone; none are needed where
    the source brings its own or git has it.

    Raises DataError when a fresh clone would have no data.
    """
    source = plugins.resolve("sources", params.ingest.source, where="ingest.source")
    if "path" not in source.Params.model_fields:
        return []
    path = params.ingest.options.get("path")
    fix = (
        "`git init && dvc add data` in the project, name it in params.yaml (ingest.options.path: "
        "data), and `dvc remote add -d store ADDRESS && dvc push`"
    )
    if path is None or Path(str(path)).is_absolute() or ".." in Path(str(path)).parts:
        raise DataError(
            "a fresh clone of this project would have no data",
            got=f"ingest.options.path is {path}; --data and inputs/local.yaml are this machine's",
            rule="CI has what git and a DVC remote have",
            fix=fix,
        )
    if (project.root / f"{path}.dvc").is_file():
        config = project.root / ".dvc" / "config"
        if not config.is_file() or "remote" not in config.read_text():
            raise DataError(
                f"{path} is tracked by DVC, and no remote has it",
                got="no remote in .dvc/config",
                rule="a fresh clone pulls the data from a DVC remote",
                fix="`dvc remote add -d store ADDRESS && dvc push`",
            )
        return [f"{path}.dvc"]
    if not git(project.root, "ls-files", "--", str(path)):
        raise DataError(
            f"neither git nor DVC tracks {path}",
            rule="CI has what git and a DVC remote have",
            fix=fix,
        )
    return []


def write_ci(project: Project, params: Params, wheel: Path, *, force: bool) -> list[Path]:
    """Write GitHub's and GitLab's file and the steps they call; return the files.

    Raises UserError for a wheel that is none, or a file of somebody else's in the way.
    """
    if wheel.suffix != ".whl" or not wheel.name.startswith("fettle_") or not wheel.is_file():
        raise UserError(
            f"{wheel} is no wheel of fettle",
            rule="it is a file fettle_…-VERSION-….whl, kept in ci/ and named by its digest",
            fix="`pip wheel --no-deps FETTLE` makes one of a checkout",
        )
    data = tracked_data(project, params)
    pull = f"dvc pull --quiet {' '.join(data)} || code=$?\n" if data else ""
    texts = {
        ".github/workflows/fettle.yml": template("ci.yml").read_text(),
        ".gitlab-ci.yml": template("gitlab.yml").read_text(),
        "ci/install.sh": INSTALL.format(
            mark=MARK, digest=manifest.sha256_file(wheel), wheel=wheel.name
        ),
        "ci/run.sh": RUN.format(mark=MARK, pull=pull),
    }
    for name in texts:
        refuse_foreign(project.root / name, force=force)
    for name, text in texts.items():
        manifest.write_text(project.root / name, text)
    kept = project.root / "ci" / wheel.name
    for former in kept.parent.glob("fettle_*.whl"):
        if former != kept:
            former.unlink()
    if not kept.is_file() or not kept.samefile(wheel):
        shutil.copyfile(wheel, kept)
    return [*(project.root / name for name in texts), kept]


def refuse_foreign(path: Path, *, force: bool) -> None:
    """Refuse to write over a file that somebody else wrote."""
    if path.is_file() and not force and MARK not in path.read_text(errors="replace").lower():
        raise UserError(
            f"{path} is there already",
            rule="what somebody else wrote is not written over",
            fix="move it away, or add --force",
        )


def write_hook(project: Project, bare: Path, *, main: str, on_push: OnPush, force: bool) -> Path:
    """Write the post-receive hook of a bare repository and its settings; return the hook.

    Raises ProjectError when `bare` is no bare repository or the project is in no repository.
    """
    if not bare.is_dir() or git(bare, "rev-parse", "--is-bare-repository") != "true":
        raise ProjectError(
            f"{bare} is no bare repository",
            rule="a hook runs where one pushes to",
            fix=f"`git init --bare {bare}`, or name the one that exists",
        )
    prefix = git(project.root, "rev-parse", "--show-prefix")
    if prefix is None:
        raise ProjectError(
            f"{project.root} is in no git repository",
            rule="what is pushed is run",
            fix="`git init` in the project, and commit it",
        )
    hook = bare.resolve() / "hooks" / "post-receive"
    refuse_foreign(hook, force=force)
    settings = PushSettings(main=main, on_push=on_push, run=("run",), folder=prefix or ".")
    settings.write(PushQueue(bare).home / "settings.json")
    hook.parent.mkdir(exist_ok=True)
    manifest.write_text(hook, HOOK.format(mark=MARK, python=sys.executable))
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return hook


def git(folder: Path, *command: str) -> str | None:
    """Run git in a folder; None when it fails or there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            text=True,
            check=True,
            env=outside_git(os.environ),
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
