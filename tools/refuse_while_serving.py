"""Exit 2 with the reason while this project is served: `make clean` deletes what that runs on."""

from __future__ import annotations

import sys
from pathlib import Path

from fettle.project import Project
from fettle.rollout.router import model_servers, nginx_process
from fettle.rollout.supervisor import supervisor_launch


def serving(project: Project) -> str | None:
    """Say what runs of a served project; None where nothing does."""
    place = supervisor_launch.layout_of(project)
    if supervisor_launch.running(place):
        return "its supervisor"
    routers = [place.router, *project.state.glob("serve/*/router")]
    if any(nginx_process.running(folder) or nginx_process.orphans(folder) for folder in routers):
        return "its router"
    found = model_servers.ModelServers(place.arms, {}, key=None).running()
    return f"the release {found[0].release}" if found else None


def main() -> None:
    """Refuse in the current folder, or say nothing."""
    root = Path.cwd()
    if (what := serving(Project(root, root))) is not None:
        sys.exit(
            f"fettle: this project is served: {what} runs, and would lose its files. "
            "Fix: `fettle canary stop`, or Ctrl-C where `fettle serve` runs."
        )


if __name__ == "__main__":
    main()
