"""A bare repository with the post-receive hook, and a clone that pushes to it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from fettle.adapters.push_queue import PushedRun, PushQueue, outside_git

WHO = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *command: str, env: dict[str, str] | None = None) -> str:
    """Run git in a folder; return what it prints."""
    done = subprocess.run(
        ["git", *WHO, "-C", str(folder), *command],
        capture_output=True,
        text=True,
        check=False,
        env=outside_git(env or os.environ),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Pushed:
    """`project` is a work tree whose remote "origin" is `bare`."""

    def __init__(self, root: Path, project: Path) -> None:
        self.project, self.bare = project, root / "fruit.git"
        git(root, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        git(project, "init", "--quiet", "--initial-branch=main")
        git(project, "remote", "add", "origin", str(self.bare))
        self.queue = PushQueue(self.bare)

    def commit(self, text: str, branch: str = "main") -> str:
        """Commit what has changed, to a branch; return the commit."""
        git(self.project, "checkout", "--quiet", "-B", branch)
        git(self.project, "add", "-A")
        git(self.project, "commit", "--quiet", "--allow-empty", "-m", text)
        return git(self.project, "rev-parse", "HEAD")

    def push(self, branch: str = "main", env: dict[str, str] | None = None) -> float:
        """Push a branch; return the seconds that it took."""
        begun = time.monotonic()
        git(self.project, "push", "--quiet", "--force", "origin", branch, env=env)
        return time.monotonic() - begun

    def run(self, commit: str) -> PushedRun:
        """What became of a commit."""
        return PushedRun.read(self.queue.home / "runs" / f"{commit}.json")

    def wait(self, commit: str, timeout_s: float) -> PushedRun:
        """Wait until a commit's run is over."""
        deadline = time.monotonic() + timeout_s
        while self.run(commit).finished_s is None:
            assert time.monotonic() < deadline, (self.queue.home / "worker.log").read_text()
            time.sleep(0.2)
        return self.run(commit)

    def comment(self, commit: str) -> str:
        """The comment of a commit."""
        return (self.queue.home / "comments" / f"{commit}.md").read_text()
