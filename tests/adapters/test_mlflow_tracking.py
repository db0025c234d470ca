"""MLflow through our door, on a real SQLite file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fettle import manifest
from fettle.adapters import run_identity
from fettle.adapters.mlflow_client import close_killed_runs
from fettle.adapters.mlflow_tracking import Tracker, allowed, flatten
from fettle.adapters.run_identity import PROCESS, PROJECT, RunIdentity
from fettle.errors import TransientError
from fettle.measure import Measure
from fettle.project import Project

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


def tracker(store: Path) -> Tracker:
    made = Tracker(f"sqlite:///{store / 'mlflow.db'}", store / "artifacts", "digits")
    made.start("digits", {"seed": 3, "recipe": [{"use": "prune"}]}, {"git": "abc"})
    return made


def seal(folder: Path, accuracy: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "curve.json").write_text("[]")
    measure = Measure(value=accuracy, unit="1", n=10)
    manifest.write(
        folder,
        "finetune",
        inputs={},
        measures={"accuracy": measure},
        facts=manifest.UnreadFacts({}),
    )
    return folder


def test_a_stage_becomes_a_child_run_with_its_series_measures_and_files(
    store: Path, tmp_path: Path
) -> None:
    one = tracker(store)
    child = one.stage_started("finetune")
    points = [
        {"kind": "scalar", "name": "loss", "value": 1.0 / (1 + step), "step": step, "time": 1.0}
        for step in range(3)
    ]
    one.events("finetune", [*points, {"kind": "note", "name": "device", "text": "cpu"}])
    one.stage_done("finetune", seal(tmp_path / "a", 0.5))
    client = one._client
    run = client.get_run(child)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == one.parent_run
    assert run.data.tags["device"] == "cpu"
    assert run.data.metrics["accuracy"] == 0.5
    assert [m.value for m in client.get_metric_history(child, "loss")] == [1.0, 0.5, 1 / 3]
    assert {f.path for f in client.list_artifacts(child)} == {"curve.json", "manifest.json"}
    assert client.get_run(one.parent_run).data.params["recipe.0.use"] == "prune"


def test_a_cached_stage_is_linked_to_the_run_that_made_it(store: Path, tmp_path: Path) -> None:
    first = tracker(store)
    made = first.stage_started("finetune")
    first.stage_done("finetune", seal(tmp_path / "b", 0.75))
    second = tracker(store)
    second.stage_cached("finetune", tmp_path / "b")
    assert second._client.get_run(second.parent_run).data.tags["stage.finetune"] == made


def test_a_restored_stage_that_nobody_knows_gets_a_run_from_its_manifest(
    store: Path, tmp_path: Path
) -> None:
    one = tracker(store)
    one.stage_cached("finetune", seal(tmp_path / "c", 0.25))
    run = one._client.get_run(one._client.get_run(one.parent_run).data.tags["stage.finetune"])
    assert (run.data.tags["restored"], run.data.metrics["accuracy"]) == ("true", 0.25)


def test_a_failed_stage_is_closed_with_its_error(store: Path) -> None:
    one = tracker(store)
    one.stage_failed("finetune", "the disk is full")
    run = one._client.get_run(one._children["finetune"])
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "the disk is full")


def test_a_release_is_registered_once_and_only_a_passing_gate_makes_it_challenger(
    store: Path, tmp_path: Path
) -> None:
    one = tracker(store)
    tags = {"release_digest": "d1", "bento_tag": "digits:d1"}
    first = one.register("digits", tmp_path, tags, challenger=True)
    assert one.register("digits", tmp_path, tags, challenger=True) == first
    failing = one.register("digits", tmp_path, {**tags, "release_digest": "d2"}, challenger=False)
    assert failing != first
    named = one._client.get_model_version_by_alias("digits", "challenger")
    assert (str(named.version), named.tags["bento_tag"]) == (first, "digits:d1")


def test_names_are_written_as_mlflow_takes_them() -> None:
    assert allowed("stage.export@x86") == "stage.export:x86"
    assert allowed("compress.recipe[0]") == "compress.recipe.0"
    assert allowed("recall.größe<b>") == "recall.größe_b_-edd3b6d4"


def test_flatten_names_every_leaf() -> None:
    assert flatten({"a": {"b": [1, {"c": None}]}, "d": {}}) == {
        "a.b.0": 1,
        "a.b.1.c": None,
        "d": {},
    }


def test_runs_of_a_killed_process_are_closed_and_a_stranger_s_is_not(store: Path) -> None:
    """The server may be a team's: what another project, machine or process runs goes on."""
    uri, place = f"sqlite:///{store / 'mlflow.db'}", store / "artifacts"
    me = run_identity.of_this_process(Project(store, store))
    gone = "0 1.00 an-earlier-boot/1"

    def opened(who: RunIdentity) -> Tracker:
        made = Tracker(uri, place, "digits", identity=who)
        made.start("digits", {}, {})
        return made

    killed = opened(replace(me, process=gone))
    stage = killed.stage_started("finetune")
    others = [
        opened(me).parent_run,  # alive
        opened(replace(me, process=gone, project="another")).parent_run,
        opened(replace(me, process=gone, host="another")).parent_run,
        tracker(store).parent_run,  # of an earlier fettle: nobody knows whose
    ]
    client = killed._client
    (home,) = [e for e in client.search_experiments() if e.name == "digits"]
    others.append(client.create_run(home.experiment_id).info.run_id)
    assert close_killed_runs(uri, me) == 2
    states = [client.get_run(r).info.status for r in (killed.parent_run, stage, *others)]
    assert states == ["KILLED", "KILLED", *["RUNNING"] * 5]
    assert client.get_run(stage).data.tags[PROJECT] == me.project
    assert client.get_run(stage).data.tags[PROCESS] == gone
    assert close_killed_runs(uri, me) == 0


LABELS = ["猫", "犬", "w/", "w", "Aves//Corvus", "Aves/Corvus", "..", "/", "#1", "+1", "a@b", "a:b"]
LABELS += [
    "a[0]",
    "a.0",
    "",
    " ",
    "é",
    "e\u0301",
    "emoji 🐈",
    "x" * 400 + "a",
    "x" * 400 + "b",
    "A",
]


def test_every_label_has_a_metric_of_its_own_that_mlflow_takes(store: Path) -> None:
    one = tracker(store)
    child = one.stage_started("finetune")
    points = [
        {"kind": "scalar", "name": f"recall.{label}", "value": float(n), "step": 0, "time": 1.0}
        for n, label in enumerate(LABELS)
    ]
    notes = [{"kind": "note", "name": label, "text": str(n)} for n, label in enumerate(LABELS)]
    one.events("finetune", [*points, *notes])
    data = one._client.get_run(child).data
    assert sorted(data.metrics.values()) == list(range(len(LABELS)))
    assert data.metrics["recall.猫"] == 0.0
    assert {int(data.tags[allowed(label)]) for label in LABELS} == set(range(len(LABELS)))


def test_a_name_is_written_the_same_in_every_run_whatever_else_is_there() -> None:
    assert allowed("recall.猫") == "recall.猫"
    assert allowed("recall.Aves/Corvus") == "recall.Aves/Corvus"
    assert allowed("recall.w/") == "recall.w_-" + allowed("recall.w/")[-8:]
    assert len(allowed("recall." + "x" * 400)) == 250


def test_many_params_and_many_measures_are_written_whole(store: Path) -> None:
    one = tracker(store)
    one.start("digits", {"labels": [f"class {n}" for n in range(250)]}, {})
    one.metrics({f"recall.{n}": float(n) for n in range(1200)})
    run = one._client.get_run(one.parent_run)
    assert (len(run.data.params), len(run.data.metrics)) == (250, 1200)


def test_a_stage_that_the_user_added_seals_nothing_and_is_closed_all_the_same(
    store: Path, tmp_path: Path
) -> None:
    one = tracker(store)
    child = one.stage_started("clean")
    one.stage_done("clean", tmp_path / "artifacts" / "clean")
    one.stage_cached("clean", tmp_path / "artifacts" / "clean")
    assert one._client.get_run(child).info.status == "FINISHED"


def test_an_experiment_that_was_deleted_in_mlflow_s_ui_is_used_again(store: Path) -> None:
    first = tracker(store)
    client = first._client
    (home,) = [e for e in client.search_experiments() if e.name == "digits"]
    client.delete_experiment(home.experiment_id)
    again = tracker(store)
    assert client.get_run(again.parent_run).info.experiment_id == home.experiment_id


def test_what_mlflow_refuses_is_one_of_our_errors(store: Path) -> None:
    one = tracker(store)
    with pytest.raises(TransientError) as caught:
        one._client.log_metric(one.parent_run, "a//b", 1.0)
    assert str(caught.value).startswith("MLflow did not take what the run did: got ")
    assert "it was asked to log metric. Fix: run again" in str(caught.value)
