from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pushed import Pushed, git
from tiny_project import ROOT

from fettle.adapters.push_queue import ZERO, PushedRun, PushSettings
from fettle.errors import ProjectError

pytestmark = pytest.mark.flows

QUICK, WRONG = ("catalog", "sources"), ("catalog", "nonsense")


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    """A project whose pushes are queued and run a command that takes no time."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, project / name)
    made = Pushed(tmp_path, project)
    setting(made)
    return made


def setting(pushed: Pushed, on_push: str = "queue", run: tuple[str, ...] = QUICK) -> None:
    asked = {"main": "main", "on_push": on_push, "run": run}
    PushSettings.model_validate(asked).write(pushed.queue.home / "settings.json")


def send(pushed: Pushed, text: str, branch: str = "main") -> str:
    """Commit and push, and hand the queue what git would tell the hook."""
    commit = pushed.commit(text, branch)
    pushed.push(branch)
    assert pushed.queue.receive([f"{ZERO} {commit} refs/heads/{branch}"]) == [commit]
    return commit


def states(pushed: Pushed) -> dict[str, str]:
    return {run.commit: run.state for run in pushed.queue.runs()}


def test_main_outranks_branches_and_older_pushes_go_first(pushed: Pushed) -> None:
    first = send(pushed, "one", "idea")
    second = send(pushed, "two", "other")
    third = send(pushed, "three", "main")
    assert states(pushed) == dict.fromkeys((first, second, third), "queued")
    pushed.queue.work()
    assert set(states(pushed).values()) == {"passed"}
    order = sorted(pushed.queue.runs(), key=lambda run: run.started_s or 0)
    assert [run.commit for run in order] == [third, first, second]
    assert not list((pushed.queue.home / "trees").iterdir())
    assert "worktree" in git(pushed.bare, "worktree", "list", "--porcelain")


def test_each_commit_runs_in_its_own_tree_with_its_own_files(pushed: Pushed) -> None:
    (pushed.project / "params.yaml").write_text("seed: [")
    setting(pushed, run=("report",))
    broken = send(pushed, "broken")
    shutil.copyfile(ROOT / "params.yaml", pushed.project / "params.yaml")
    mended = send(pushed, "mended")
    setting(pushed, run=("dummy",))
    pushed.queue.work()
    assert states(pushed) == {broken: "failed", mended: "failed"}
    log = (pushed.queue.home / "logs" / f"{mended}.log").read_text()
    assert "No such command 'dummy'" in log
    assert "No such command 'dummy'" in pushed.comment(mended)
    assert f"The run of {broken[:12]} did not pass:" in pushed.comment(broken)


def test_two_pushes_to_a_branch_are_both_run_when_they_are_queued(pushed: Pushed) -> None:
    first, second = send(pushed, "one", "idea"), send(pushed, "two", "idea")
    pushed.queue.work()
    assert states(pushed) == {first: "passed", second: "passed"}


def test_a_later_push_takes_an_earlier_one_out_of_the_queue_when_it_supersedes(
    pushed: Pushed,
) -> None:
    setting(pushed, "supersede")
    first, other = send(pushed, "one", "idea"), send(pushed, "two", "other")
    second = send(pushed, "three", "idea")
    pushed.queue.work()
    assert states(pushed) == {first: "superseded", other: "passed", second: "passed"}


@pytest.mark.parametrize(("on_push", "left"), [("supersede", "superseded"), ("queue", "running")])
def test_a_run_under_way_is_stopped_only_when_it_is_superseded(
    pushed: Pushed, on_push: str, left: str
) -> None:
    setting(pushed, on_push)
    first = send(pushed, "one", "idea")
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    running = pushed.run(first).model_copy(update={"state": "running", "pid": child.pid})
    running.write(pushed.queue.home / "runs" / f"{first}.json")
    with pushed.queue._alone() as mine:  # as the worker that runs it does
        assert mine
        send(pushed, "two", "idea")
    assert pushed.run(first).state == left
    if on_push == "supersede":
        assert child.wait(timeout=10) == -15
    else:
        assert child.poll() is None
        child.kill()
        child.wait()


def test_a_killed_workers_process_number_is_not_stopped(pushed: Pushed) -> None:
    setting(pushed, "supersede")
    first = send(pushed, "one", "idea")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as somebody_elses:
        running = pushed.run(first).model_copy(
            update={"state": "running", "pid": somebody_elses.pid}
        )
        running.write(pushed.queue.home / "runs" / f"{first}.json")
        send(pushed, "two", "idea")
        assert somebody_elses.poll() is None
        somebody_elses.kill()
    assert pushed.run(first).state == "superseded"


def test_a_run_that_a_killed_worker_had_begun_is_begun_anew(pushed: Pushed) -> None:
    commit = send(pushed, "one")
    running = pushed.run(commit).model_copy(update={"state": "running", "pid": 1})
    running.write(pushed.queue.home / "runs" / f"{commit}.json")
    pushed.queue.work()
    assert states(pushed) == {commit: "passed"}


def test_a_commit_that_is_queued_for_a_branch_is_run_once_and_as_mains(pushed: Pushed) -> None:
    commit = send(pushed, "one", "idea")
    assert pushed.queue.receive([f"{ZERO} {commit} refs/heads/main"]) == []
    pushed.queue.work()
    assert (pushed.run(commit).ref, pushed.run(commit).state) == ("refs/heads/main", "passed")
    assert states(pushed) == {commit: "passed"}


def test_a_deleted_branch_and_a_tag_run_nothing(pushed: Pushed) -> None:
    commit = pushed.commit("one")
    lines = [f"{commit} {ZERO} refs/heads/gone", f"{ZERO} {commit} refs/tags/v1"]
    assert pushed.queue.receive(lines) == []
    assert pushed.queue.runs() == []


def test_one_worker_at_a_time_runs_the_queue(pushed: Pushed) -> None:
    commit = send(pushed, "one")
    with pushed.queue._alone() as mine:
        assert mine
        pushed.queue.work()
        assert states(pushed) == {commit: "queued"}
    pushed.queue.work()
    assert states(pushed) == {commit: "passed"}


def test_a_commit_without_a_project_says_so(pushed: Pushed) -> None:
    (pushed.project / "dvc.yaml").unlink()
    commit = send(pushed, "no project")
    pushed.queue.work()
    assert pushed.run(commit).state == "failed"
    assert pushed.comment(commit) == (f"{commit[:12]} cannot be run: there is no dvc.yaml in it\n")


def test_what_a_killed_worker_left_is_run_again(pushed: Pushed) -> None:
    commit = send(pushed, "one")
    tree = pushed.queue.home / "trees" / commit
    tree.parent.mkdir()
    git(pushed.bare, "worktree", "add", "--quiet", "--detach", str(tree), commit)
    (tree / "half-written").touch()
    pushed.queue.work()
    assert pushed.run(commit).state == "passed"
    assert not tree.exists()


def test_a_repository_without_the_hook_is_refused_in_words(tmp_path: Path) -> None:
    from fettle.adapters.push_queue import PushQueue

    with pytest.raises(ProjectError) as caught:
        PushQueue(tmp_path).settings()
    assert str(caught.value) == (
        f"{tmp_path} runs nothing on a push: got no {tmp_path}/fettle/settings.json. Fix: "
        f"`fettle ci init --hook {tmp_path}` in the project."
    )


def test_gits_own_variables_do_not_reach_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from fettle.adapters.push_queue import outside_git

    monkeypatch.setenv("GIT_DIR", ".")
    assert "GIT_DIR" not in outside_git(os.environ)
    assert PushedRun(commit="c", ref="r", state="queued", pushed_s=1.0).started_s is None
