"""Which open runs another run may end: its own project's, of this machine, of a dead process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fettle.adapters import process_identity, run_identity
from fettle.adapters.run_identity import HOST, PROCESS, PROJECT, RunIdentity
from fettle.project import Project


@pytest.fixture
def me(tmp_path: Path) -> RunIdentity:
    return run_identity.of_this_process(Project(tmp_path, tmp_path))


@pytest.fixture
def dead(me: RunIdentity) -> dict[str, str]:
    """The tags that a process of this project left, which is gone."""
    with subprocess.Popen(["sleep", "60"]) as child:
        born = process_identity.of(child.pid).born
        child.kill()
    place = me.process.split(" ")[2]
    return {**me.tags(), PROCESS: f"{child.pid} {born:.2f} {place}"}


def test_a_project_keeps_its_id_and_another_has_another(tmp_path: Path, me: RunIdentity) -> None:
    assert run_identity.of_this_process(Project(tmp_path, tmp_path)) == me
    other = tmp_path / "other"
    assert run_identity.of_this_process(Project(other, other)).project != me.project


def test_a_run_whose_process_is_gone_may_be_ended(me: RunIdentity, dead: dict[str, str]) -> None:
    assert me.left_behind(dead)


def test_a_run_of_a_living_process_is_let_be(me: RunIdentity) -> None:
    assert not me.left_behind(me.tags())


def test_a_process_number_that_is_another_s_by_now_is_no_living_run(me: RunIdentity) -> None:
    place = me.process.split(" ")[2]
    assert me.left_behind({**me.tags(), PROCESS: f"{os.getpid()} 12.00 {place}"})


@pytest.mark.parametrize(
    "change",
    [
        {PROJECT: "another"},
        {HOST: "another"},
        {PROCESS: "nonsense"},
        {PROCESS: ""},
        {PROJECT: None},
        {HOST: None},
    ],
)
def test_what_is_not_ours_or_cannot_be_told_is_let_be(
    me: RunIdentity, dead: dict[str, str], change: dict[str, str | None]
) -> None:
    changed = {key: value for key, value in {**dead, **change}.items() if value is not None}
    assert not me.left_behind(changed)


def test_a_container_beside_us_cannot_be_seen_and_a_boot_before_us_is_over(
    me: RunIdentity, dead: dict[str, str]
) -> None:
    pid, born, place = dead[PROCESS].split(" ")
    boot, _, namespace = place.partition("/")
    assert not me.left_behind({**dead, PROCESS: f"{pid} {born} {boot}/1{namespace}"})
    earlier = f"{os.getpid()} {process_identity.me().born} an-earlier-boot/{namespace}"
    assert me.left_behind({**dead, PROCESS: earlier})
