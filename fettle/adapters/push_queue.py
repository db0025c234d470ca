"""Push queue of a bare repository: each pushed commit is run in a worktree of its own.

    BARE/fettle/
    settings.json        what a push starts, whether a later push supersedes, which branch is main
    queue/N-COMMIT.json  pushed and not yet run
    runs/COMMIT.json     what became of it: queued, running, passed, failed, superseded
    comments/COMMIT.md   its report, as one comment; reports/COMMIT/ the pages
    logs/COMMIT.log      what the run printed
    releases/            what the runs published, signed
    cache/               DVC's cache and run-cache, shared by all runs

The hook only writes to the queue and wakes a worker: a push never waits and never fails. One worker
at a time runs the queue, main before the branches, and older pushes before newer ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from fettle import manifest
from fettle.errors import ProjectError
from fettle.facts.typed_document import TypedDocument

ZERO = "0" * 40  # git's name for "no commit": a branch that was deleted
HEADS = "refs/heads/"
FETTLE = (sys.executable, "-m", "fettle.cli.main")
OnPush = Literal["queue", "supersede"]
State = Literal["queued", "running", "passed", "failed", "superseded"]
STOP_S = 20.0  # a run that is told to stop ends its stages first
TAIL_LINES = 20


class PushSettings(TypedDocument, extra="ignore"):
    """What a push starts: `run` is a fettle command line, in the project's folder of a worktree."""

    main: str
    on_push: OnPush
    run: tuple[str, ...]
    folder: str = "."  # of the project, in the repository


class PushedRun(TypedDocument, extra="ignore"):
    """A pushed commit and what became of it; times are seconds since the epoch."""

    commit: str
    ref: str
    state: State
    pushed_s: float
    started_s: float | None = None
    finished_s: float | None = None
    pid: int | None = None
    release: str | None = None


class PushQueue:
    """The queue of one bare repository."""

    def __init__(self, bare: Path) -> None:
        self.bare = bare.resolve()
        self.home = self.bare / "fettle"

    def settings(self) -> PushSettings:
        """Read the settings. Raises ProjectError when the hook was never installed here."""
        file = self.home / "settings.json"
        if not file.is_file():
            raise ProjectError(
                f"{self.bare} runs nothing on a push",
                got=f"no {file}",
                fix=f"`fettle ci init --hook {self.bare}` in the project",
            )
        return PushSettings.read(file)

    def runs(self) -> list[PushedRun]:
        """List what was pushed, oldest first."""
        found = [PushedRun.read(path) for path in (self.home / "runs").glob("*.json")]
        return sorted(found, key=lambda run: run.pushed_s)

    def receive(self, lines: Iterable[str]) -> list[str]:
        """Take git's lines "old new ref" into the queue; return the commits."""
        settings, taken = self.settings(), []
        for line in lines:
            _, commit, ref = line.split()
            if commit == ZERO or not ref.startswith(HEADS):
                continue
            with self._records():
                if settings.on_push == "supersede":
                    self._supersede(ref)
                if self._joins_a_run(commit, ref):
                    continue
                run = PushedRun(commit=commit, ref=ref, state="queued", pushed_s=time.time())
                self._write(run)
                run.write(self.home / "queue" / f"{time.time_ns():020d}-{commit}.json")
            taken.append(commit)
        return taken

    def wake(self) -> None:
        """Start a worker that outlives the push; one that runs already takes the queue's rest."""
        with (self.home / "worker.log").open("a") as log:
            subprocess.Popen(
                [*FETTLE, "ci", "work", str(self.bare)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.bare,
                env=outside_git(os.environ),
            )

    def work(self) -> None:
        """Run the queue until it is empty, unless another worker does."""
        while self._next() is not None:
            with self._alone() as mine:
                if not mine:
                    return
                while (path := self._next()) is not None:
                    self._run(PushedRun.read(path), path)

    def _next(self) -> Path | None:
        """Return the entry to run next: main's first, then the oldest."""
        main = f"{HEADS}{self.settings().main}"
        entries = sorted((self.home / "queue").glob("*.json"))
        ranked = [(PushedRun.read(path).ref != main, path.name, path) for path in entries]
        return min(ranked)[2] if ranked else None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        with (self.home / "worker.lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def _write(self, run: PushedRun) -> None:
        run.write(self.home / "runs" / f"{run.commit}.json")

    @contextlib.contextmanager
    def _records(self) -> Iterator[None]:
        """Hold the records of runs: what is read of one is so until it is written."""
        with (self.home / "records.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _told(self, commit: str) -> PushedRun | None:
        path = self.home / "runs" / f"{commit}.json"
        return PushedRun.read(path) if path.is_file() else None

    def _worker_lives(self) -> bool:
        with self._alone() as mine:
            return not mine

    def _joins_a_run(self, commit: str, ref: str) -> bool:
        """Say whether a commit is queued or at work for another branch; its run is then of both.

        Main's claim goes before a branch's, so that its release is main's.
        """
        entries = sorted((self.home / "queue").glob(f"*-{commit}.json"))
        told = self._told(commit)
        if not entries or told is None or told.state == "superseded":
            return False
        if ref == f"{HEADS}{self.settings().main}":
            self._write(told.model_copy(update={"ref": ref}))
            PushedRun.read(entries[0]).model_copy(update={"ref": ref}).write(entries[0])
        return True

    def _supersede(self, ref: str) -> None:
        """Take earlier pushes of a branch out of the queue, and stop the one that runs.

        A run whose worker was killed is not stopped: its process number may be another's by now.
        """
        lives = self._worker_lives()
        for path in (self.home / "queue").glob("*.json"):
            told = self._told(PushedRun.read(path).commit)
            if told is None or told.ref != ref:
                continue
            self._write(told.model_copy(update={"state": "superseded"}))
            if told.state == "running" and told.pid and lives:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(told.pid, signal.SIGTERM)
            else:
                path.unlink(missing_ok=True)

    def _run(self, run: PushedRun, entry: Path) -> None:
        """Run one commit in its worktree, and leave its report and comment."""
        worktree = self.home / "trees" / run.commit
        tree = worktree / self.settings().folder
        log = self.home / "logs" / f"{run.commit}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        if problem := self._check_out(run.commit, worktree, tree):
            self._refuse(run, entry, problem)
            return
        try:
            with log.open("w") as out:
                child = self._start(tree, self.settings().run, out)
                began = run.model_copy(
                    update={"state": "running", "started_s": time.time(), "pid": child.pid}
                )
                with self._records():  # the entry stays: a killed worker's run is begun anew
                    told = self._told(run.commit)
                    if told is not None and told.state == "superseded":  # while it was checked out
                        os.killpg(child.pid, signal.SIGTERM)
                    else:
                        self._write(began)
                code = child.wait()
            ended = self._end(began, tree, log, passed=code == 0)
        finally:
            self._start(tree, ("ui", "--stop"), subprocess.DEVNULL).wait()
            self._git("worktree", "remove", "--force", str(worktree))
            entry.unlink(missing_ok=True)
        self._write(ended)  # last: who reads that a run is over finds nothing of it at work

    def _refuse(self, run: PushedRun, entry: Path, problem: str) -> None:
        """Say why a commit cannot be run at all."""
        text = f"{run.commit[:12]} cannot be run: {problem}\n"
        manifest.write_text(self.home / "comments" / f"{run.commit}.md", text)
        self._write(run.model_copy(update={"state": "failed", "finished_s": time.time()}))
        entry.unlink(missing_ok=True)

    def _end(self, run: PushedRun, tree: Path, log: Path, *, passed: bool) -> PushedRun:
        """Keep what a run left, and return how it ended; one that was superseded stays so."""
        told = self._told(run.commit) or run
        release = self._keep_releases(tree)
        before = self._released(run)
        wanted = ("report", "--markdown", *(("--against", str(before)) if before else ()))
        done = subprocess.run(
            [*FETTLE, *wanted],
            cwd=tree,
            env=outside_git(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        text = done.stdout if done.returncode == 0 else f"{done.stderr}\n"
        if not passed:
            text += f"\nThe run of {run.commit[:12]} did not pass:\n\n```\n{tail}\n```\n"
        manifest.write_text(self.home / "comments" / f"{run.commit}.md", text)
        if (tree / "report").is_dir():
            pages = self.home / "reports" / run.commit
            shutil.copytree(tree / "report", pages, dirs_exist_ok=True)
        ended: State = "passed" if passed else "failed"
        state: State = "superseded" if told.state == "superseded" else ended
        update = {
            "state": state,
            "ref": told.ref,
            "finished_s": time.time(),
            "pid": None,
            "release": release,
        }
        return run.model_copy(update=update)

    def _keep_releases(self, tree: Path) -> str | None:
        """Copy what the run published; return its name, None when it published nothing."""
        last = tree / ".fettle" / "last.json"
        if not last.is_file():
            return None
        name = Path(json.loads(last.read_text())["release"]["folder"]).name
        kept = self.home / "releases"
        kept.mkdir(exist_ok=True)
        for path in (tree / "releases").glob(f"{name}*"):
            if path.is_dir():
                shutil.copytree(path, kept / path.name, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, kept / path.name)
        return name

    def _released(self, run: PushedRun) -> Path | None:
        """Return main's last release, of another commit: what this run is compared with."""
        main = f"{HEADS}{self.settings().main}"
        found = [
            one.release
            for one in self.runs()
            if one.ref == main and one.state == "passed" and one.commit != run.commit
        ]
        return self.home / "releases" / found[-1] if found and found[-1] else None

    def _check_out(self, commit: str, worktree: Path, tree: Path) -> str | None:
        """Make the commit's worktree; return why it holds no project, None where it does."""
        if worktree.exists():  # a killed worker's
            self._git("worktree", "remove", "--force", str(worktree))
            shutil.rmtree(worktree, ignore_errors=True)
        self._git("worktree", "prune")
        worktree.parent.mkdir(parents=True, exist_ok=True)
        said = self._git("worktree", "add", "--quiet", "--detach", str(worktree), commit)
        if said or not (tree / "dvc.yaml").is_file():
            self._git("worktree", "remove", "--force", str(worktree))
            return said or "there is no dvc.yaml in it"
        (tree / ".dvc").mkdir(exist_ok=True)
        cache = f"[cache]\n    dir = {self.home / 'cache'}\n"
        (tree / ".dvc" / "config.local").write_text(cache)
        return None

    def _start(
        self, tree: Path, command: Sequence[str], out: int | object
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*FETTLE, *command],
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=out,  # type: ignore[arg-type]  # a file, or subprocess's own number
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=outside_git(os.environ),
        )

    def _git(self, *command: str) -> str:
        """Run git on the bare repository; return what it complains of."""
        done = subprocess.run(
            ["git", f"--git-dir={self.bare}", *command],
            env=outside_git(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr.strip() if done.returncode else ""


def outside_git(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without git's own variables: a hook's would name the bare folder."""
    return {name: value for name, value in environ.items() if not name.startswith("GIT_")}
