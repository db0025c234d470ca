"""DVC through our door, on a small project of its own."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_graph
from dvc.utils.serialize import load_yaml

from fettle.adapters import crash_recovery, dvc_graph
from fettle.errors import ProjectError
from fettle.staleness import input_history


def test_the_graph_comes_from_dvc_yaml_with_the_matrix_expanded(tree: Path) -> None:
    assert dvc_graph.load(tree) == {"first": [], "second@p": ["first"], "second@q": ["first"]}


def test_a_stage_runs_once_and_is_then_unchanged(tree: Path) -> None:
    assert tiny_graph.run(tree, "first") == 0
    assert (tree / "a.txt").read_text() == "1"
    _, stale = dvc_graph.stale(tree)
    assert sorted(stale) == ["second@p", "second@q"]


def test_a_stale_stage_says_which_byte_or_parameter_changed(tree: Path) -> None:
    tiny_graph.run(tree, "first")
    (tree / "params.yaml").write_text("speed: 2\n")
    (tree / "source.txt").write_text("other")
    _, stale = dvc_graph.stale(tree)
    assert set(stale["first"].reasons) == {"deps source.txt: modified", "params speed: modified"}
    assert not stale["first"].restorable


def test_an_earlier_result_is_known_to_be_restorable(tree: Path) -> None:
    tiny_graph.run(tree, "first")
    (tree / "a.txt").unlink()
    _, stale = dvc_graph.stale(tree, look_in_cache=True)
    assert stale["first"].restorable
    assert dvc_graph.restore(tree, "first")
    assert (tree / "a.txt").read_text() == "1"


def test_downstream_follows_every_arrow(tree: Path) -> None:
    assert dvc_graph.downstream(dvc_graph.load(tree), {"first"}) == {"second@p", "second@q"}


def test_a_time_out_kills_the_stage_and_all_it_started(tmp_path: Path) -> None:
    tree = tiny_graph.make(tmp_path, sleep=30)
    started = time.monotonic()
    assert tiny_graph.run(tree, "first", timeout_s=2) != 0
    assert time.monotonic() - started < 15
    assert not (tree / "a.txt").exists()
    assert not processes_mentioning("time.sleep(30)")


def test_a_killed_run_leaves_no_orphan(tmp_path: Path) -> None:
    tree = tiny_graph.make(tmp_path, sleep=31)
    parent = multiprocessing.get_context("spawn").Process(
        target=tiny_graph.run, args=(tree, "first")
    )
    parent.start()
    wait_until(lambda: bool(processes_mentioning("time.sleep(31)")))
    parent.kill()
    wait_until(lambda: not processes_mentioning("time.sleep(31)"))
    crash_recovery.clear_dead_locks(tree)
    assert (
        tiny_graph.run(tiny_graph.make_fast(tree), "first") == 0
    )  # and the next run is not blocked by the dead one


def wait_until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_mentioning(text: str) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args", "ww"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if text in line and "ps -eo" not in line]


def test_a_broken_dvc_yaml_is_a_project_error(tree: Path) -> None:
    (tree / "dvc.yaml").write_text("stages: [\n")
    with pytest.raises(ProjectError, match="DVC refused"):
        dvc_graph.load(tree)


def track_own_data(tree: Path) -> None:
    """What a user of DVC has in the same repository: `dvc add`, and a graph in a folder below."""
    photos = tree / "data" / "photos"
    photos.mkdir(parents=True)
    (photos / "a.txt").write_text("a")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data/photos"], cwd=tree, check=True)
    (tree / "study").mkdir()
    (tree / "study" / "dvc.yaml").write_text(
        "stages:\n  first:\n    cmd: exit 1\n    deps: [../a.txt]\n    outs: [own.txt]\n"
        "  plot:\n    cmd: exit 1\n    outs: [plot.txt]\n"
    )


def test_the_user_s_own_dvc_files_are_no_stage_of_the_line(tree: Path) -> None:
    track_own_data(tree)
    assert dvc_graph.load(tree) == {"first": [], "second@p": ["first"], "second@q": ["first"]}
    assert sorted(dvc_graph.stale(tree)[1]) == ["first", "second@p", "second@q"]
    assert tiny_graph.run(tree, "first") == 0  # and not the one of study/dvc.yaml
    assert sorted(dvc_graph.stale(tree)[1]) == ["second@p", "second@q"]
    (tree / "a.txt").unlink()
    assert dvc_graph.restore(tree, "first")
    assert (tree / "a.txt").read_text() == "1"


def test_a_stage_may_depend_on_what_dvc_add_tracks(tree: Path) -> None:
    track_own_data(tree)
    text = (tree / "dvc.yaml").read_text()
    (tree / "dvc.yaml").write_text(text.replace("[source.txt]", "[source.txt, data/photos]"))
    assert dvc_graph.load(tree)["first"] == []
    assert tiny_graph.run(tree, "first") == 0
    (tree / "data" / "photos" / "a.txt").write_text("other")
    assert "deps data/photos: modified" in dvc_graph.stale(tree)[1]["first"].reasons


CODE = {
    "functions": {"fettle/x.py": {"foo": "1", "bar": "2", "LIMIT": "3", "<module>": "4"}},
    "data": {"fettle/report/page.css": "5"},
    "packages": {"numpy": "2.4.5"},
}


def with_code(tree: Path) -> Path:
    """Let the first stage depend on a digest of its code, as dvc.yaml's stages do."""
    path = tree / "inputs" / "code" / "first.json"
    input_history.keep(tree, path, CODE)
    text = (tree / "dvc.yaml").read_text()
    (tree / "dvc.yaml").write_text(text.replace("[source.txt]", "[inputs/code/first.json]"))
    assert tiny_graph.run(tree, "first") == 0
    return path


def test_a_stale_stage_says_which_function_file_and_package_changed(tree: Path) -> None:
    path = with_code(tree)
    now = {
        "functions": {"fettle/x.py": {"foo": "9", "LIMIT": "9", "<module>": "9", "new": "1"}},
        "data": {"fettle/report/page.css": "9"},
        "packages": {"numpy": "2.4.6", "scipy": "1.17.1"},
    }
    input_history.keep(tree, path, now)
    _, stale = dvc_graph.stale(tree)
    assert list(stale["first"].reasons) == [
        "fettle/x.py module level changed",
        "fettle/x.py constant `LIMIT` changed",
        "fettle/x.py function `bar` is no longer reached",
        "fettle/x.py function `foo` changed",
        "fettle/x.py function `new` is reached now",
        "fettle/report/page.css changed",
        "package numpy: 2.4.5 before, 2.4.6 now",
        "package scipy: not imported before, 1.17.1 now",
    ]


def test_a_long_list_of_changes_is_cut_and_counted(tree: Path) -> None:
    path = with_code(tree)
    many = {f"f{number:02}": "1" for number in range(40)}
    input_history.keep(tree, path, {**CODE, "functions": {"fettle/x.py": many}})
    _, stale = dvc_graph.stale(tree)
    assert len(stale["first"].reasons) == input_history.SHOWN_MAX + 1
    assert stale["first"].reasons[-1] == "and 32 more in first.json"


def test_a_version_that_was_not_kept_is_named_by_its_file(tree: Path) -> None:
    path = with_code(tree)
    shutil.rmtree(tree / ".fettle" / "inputs")
    input_history.keep(tree, path, {**CODE, "data": {}})
    _, stale = dvc_graph.stale(tree)
    assert stale["first"].reasons == ("deps inputs/code/first.json: modified",)


def test_the_stage_that_is_always_asked_is_no_part_of_the_flow_s_graph(tree: Path) -> None:
    text = (tree / "dvc.yaml").read_text()
    asked = "stages:\n  inputs:\n    cmd: echo\n    always_changed: true\n    outs: [source.txt]\n"
    (tree / "dvc.yaml").write_text(text.replace("stages:\n", asked, 1))
    stages, stale = dvc_graph.stale(tree)
    assert stages == {"first": [], "second@p": ["first"], "second@q": ["first"]}
    assert "inputs" not in stale


def ask_first(tree: Path) -> None:
    text = (tree / "dvc.yaml").read_text()
    asked = (
        "stages:\n  inputs:\n    cmd: 'true'\n    always_changed: true\n    outs:\n"
        "      - source.txt: {cache: false, persist: true}\n"
    )
    (tree / "dvc.yaml").write_text(text.replace("stages:\n", asked, 1))


def test_the_first_stage_is_recorded_beside_the_user_s_own_dvc_files(tree: Path) -> None:
    track_own_data(tree)
    ask_first(tree)
    dvc_graph.record_first(tree)
    assert list(load_yaml(str(tree / "dvc.lock"))["stages"]) == ["inputs"]


def test_the_first_stage_is_recorded_as_dvc_would_record_it(tree: Path) -> None:
    ask_first(tree)
    assert tiny_graph.run(tree, "first") == 0
    assert "inputs" not in load_yaml(str(tree / "dvc.lock"))["stages"]
    dvc_graph.record_first(tree)
    recorded = (tree / "dvc.lock").read_bytes()
    dvc_graph.record_first(tree)
    dvc = [sys.executable, "-m", "dvc", "repro", "inputs"]
    subprocess.run(dvc, cwd=tree, capture_output=True, check=True)
    assert "inputs" in load_yaml(str(tree / "dvc.lock"))["stages"]
    assert (tree / "dvc.lock").read_bytes() == recorded
