from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from published_release import CHILD, COMMIT, MODEL, RUN, PublishedRelease

from fettle import manifest
from fettle.cli import lineage as command
from fettle.errors import UserError
from fettle.release import lineage_record
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout

ROLLOUT = "20261127-080000-abcdef"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedRelease:
    """Published once, with a rollout that promoted it; the tests that use it only read."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    made = PublishedRelease(tmp_path_factory.mktemp("published"))
    place = StateLayout(made.root / ".fettle" / "canary")
    short = made.folder.name
    begin = {"begin": {"challenger": short, "champion": "d" * 12}}
    decided = {"decision": {"state": {"phase": "promoted"}, "reason": "every gate passed"}}
    journal = place.rollout(ROLLOUT) / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text("".join(json.dumps(line) + "\n" for line in (begin, decided)) + '{"dec')
    pinned = PinnedRelease(short, made.tag, str(made.folder))
    serving = ServingState(
        "127.0.0.1", 3300, 1, 2, challenger=pinned, rollout=ROLLOUT, state="promoted"
    )
    place.write_serving(serving)
    patch.undo()
    return made


@pytest.fixture
def walk(
    published: PublishedRelease, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.chdir(published.root)

    def asked(thing: str) -> dict[str, list[dict[str, Any]]]:
        command.lineage(thing, json_=True)
        doc: dict[str, list[dict[str, Any]]] = json.loads(capsys.readouterr().out)
        return doc

    return asked


def kinds(nodes: list[dict[str, Any]]) -> set[str]:
    return {node["kind"] for node in nodes}


def ids(nodes: list[dict[str, Any]], kind: str) -> list[str]:
    return [node["id"] for node in nodes if node["kind"] == kind]


def test_a_rollout_is_walked_back_to_commit_data_and_model(
    published: PublishedRelease, walk: Any
) -> None:
    doc = walk(ROLLOUT)
    (asked,) = doc["asked"]
    assert asked == {
        "kind": "rollout",
        "id": ROLLOUT,
        "label": "promoted: every gate passed",
        "imported": False,
    }
    before = doc["made_of"]
    assert ids(before, "commit") == [COMMIT]
    assert ids(before, "run") == [RUN]
    assert ids(before, "gate") == [published.artifact("verdict")]
    assert ids(before, "release") == [published.digest]
    assert set(ids(before, "evidence")) == {
        published.artifact(f"evaluate@{target}") for target in ("x86_ort_fp32", "x86_ort_int8")
    }
    imported = {node["kind"]: node["id"] for node in before if node["imported"]}
    assert imported == {"data": "ab" * 32, "model": MODEL}
    assert kinds(doc["led_to"]) == {"traffic"}


def test_a_commit_is_walked_forward_to_the_traffic(published: PublishedRelease, walk: Any) -> None:
    doc = walk(COMMIT[:7])
    assert doc["made_of"] == []
    after = doc["led_to"]
    assert ids(after, "bento") == [published.tag]
    assert ids(after, "version") == ["tiny/3"]
    assert ids(after, "rollout") == [ROLLOUT]
    assert kinds(after) >= {"run", "artifact", "file", "evidence", "gate", "release", "traffic"}


def test_a_file_leads_from_its_target_to_the_evidence_and_no_other_targets(
    published: PublishedRelease, walk: Any
) -> None:
    other = published.work.project.folder("export@x86_ort_int8") / "model.onnx"
    by_path, by_digest = walk(str(other)), walk(manifest.sha256_file(other)[:16])
    assert by_path == by_digest
    assert ids(by_path["led_to"], "evidence") == [published.artifact("evaluate@x86_ort_int8")]
    made_of = {node["label"] for node in by_path["made_of"] if node["kind"] == "artifact"}
    assert made_of == {"ingest", "validate", "finetune", "compress", "export@x86_ort_int8"}


@pytest.mark.parametrize("asked", ["tiny/3", "models:/tiny/3", RUN, CHILD, "tag", "folder"])
def test_every_name_of_the_release_leads_to_the_commit(
    published: PublishedRelease, walk: Any, asked: str
) -> None:
    names = {"tag": published.tag, "folder": f"releases/{published.folder.name}"}
    assert ids(walk(names.get(asked, asked))["made_of"], "commit") == [COMMIT]


def test_a_stage_that_the_run_took_from_the_cache_says_so(
    published: PublishedRelease, walk: Any
) -> None:
    edges = {(edge["from"], edge["to"]): edge["how"] for edge in walk(RUN)["edges"]}
    run = f"run:{RUN}"
    assert edges[run, f"artifact:{published.artifact('ingest')}"] == "made"
    assert edges[run, f"artifact:{published.artifact('finetune')}"] == "reused"


def test_the_champion_of_a_rollout_is_not_what_the_challenger_was_made_of(walk: Any) -> None:
    assert "d" * 12 not in ids(walk(ROLLOUT)["made_of"], "release")
    (gone,) = walk("d" * 12)["asked"]
    assert gone["label"] == "no longer in releases/"
    assert ids(walk("d" * 12)["led_to"], "rollout") == [ROLLOUT]


def test_a_release_that_no_run_here_published_is_imported(
    published: PublishedRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copytree(published.folder, tmp_path / "releases" / published.folder.name)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    command.lineage(published.folder.name, json_=False)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"  release   {published.folder.name:<28} tiny for x86_ort_fp32 (imported)"
    assert f"  data      {'ab' * 6:<28} shapes (imported)" in rest
    assert rest[-1] == "led to: nothing that is recorded here"


def test_what_is_not_recorded_and_what_is_not_clear_is_refused_in_words(walk: Any) -> None:
    with pytest.raises(UserError) as caught:
        walk("no-such")
    assert str(caught.value).startswith("no lineage of 'no-such': got ")
    assert "a Bento tag, a model version (NAME/VERSION), a run, a commit" in str(caught.value)
    with pytest.raises(UserError, match="'tiny' is the start of several names: got "):
        walk("tiny")


def test_the_same_release_of_two_commits_keeps_both(
    published: PublishedRelease, tmp_path: Path
) -> None:
    folder = tmp_path / published.folder.name
    shutil.copytree(published.folder, folder)
    (run,) = lineage_record.LineageDocument.read(lineage_record.path_of(published.folder)).runs
    for run_id in ("r1", "r2", "r1"):
        one = run.model_copy(update={"run_id": run_id})
        lineage_record.append(folder, digest=published.digest, name="tiny", run=one)
    kept = lineage_record.LineageDocument.read(lineage_record.path_of(folder)).runs
    assert [one.run_id for one in kept] == ["r2", "r1"]


def test_it_answers_within_a_second_and_contacts_nothing(published: PublishedRelease) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('it asked the network')\n"
        "socket.socket = refuse\n"
        "from fettle.cli.main import main\n"
        f"sys.argv = ['fettle', 'lineage', {published.tag!r}]\n"
        "main()\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=published.root,
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "made of" in done.stdout
    # processor seconds: those of the clock are the machine's load too
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
