"""What serves keeps its address and TLS; beyond loopback it is not served in clear."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from certified import certificate
from rehearsed import RolloutHarness
from served import free_port

from fettle.adapters import bento_store
from fettle.errors import UserError
from fettle.project import Project
from fettle.rollout.supervisor import supervisor_launch
from fettle.serving import api_key_file
from tools import refuse_while_serving

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv(api_key_file.KEY, "k")
    root = tmp_path / "project"
    (root / ".fettle" / "canary").mkdir(parents=True)
    return Project(root, root)


def test_what_is_left_out_stays_as_it_was_served_last(project: Project, tmp_path: Path) -> None:
    file, key = map(str, certificate(tmp_path, "one"))
    port = free_port()
    first = supervisor_launch.begin_serving(
        project, host="127.0.0.2", port=port, champion=None, certificate=file, certificate_key=key
    )
    assert first.url == f"https://127.0.0.2:{port}"
    again = supervisor_launch.begin_serving(project, host=None, port=None, champion=None)
    assert (again.url, again.certificate_key) == (first.url, key)
    plain = supervisor_launch.begin_serving(
        project, host=None, port=None, champion=None, insecure=True
    )
    assert plain.url == f"http://127.0.0.2:{port}"


def test_before_the_first_time_it_is_loopback_and_the_usual_port(project: Project) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bento_store, "PORT", free_port())  # 3000 may be taken here
        made = supervisor_launch.begin_serving(project, host=None, port=None, champion=None)
        assert (made.host, made.port) == ("127.0.0.1", bento_store.PORT)


def test_a_public_address_without_tls_is_refused_unless_it_is_said(project: Project) -> None:
    port = free_port()
    with pytest.raises(UserError) as caught:
        supervisor_launch.begin_serving(project, host="0.0.0.0", port=port, champion=None)
    assert str(caught.value) == (
        "without TLS the API key and every image can be read on the way to 0.0.0.0: got no "
        "certificate; an address that others reach is served by https. Fix: name one: `fettle "
        "canary start --certificate FILE --key FILE`; or, behind a proxy that has one, say "
        "--insecure."
    )
    assert supervisor_launch.layout_of(project).serving() is None
    made = supervisor_launch.begin_serving(
        project, host="0.0.0.0", port=port, champion=None, insecure=True
    )
    assert made.url == f"http://0.0.0.0:{port}"
    again = supervisor_launch.begin_serving(project, host=None, port=None, champion=None)
    assert again.host == "0.0.0.0"  # it was said once


def test_the_line_to_try_an_https_address_trusts_its_certificate() -> None:
    line = bento_store.curl_line(port=3001, certificate="/c/my cert.pem", keyed=False)
    assert line == (
        "curl --cacert '/c/my cert.pem' -H 'content-type: image/jpeg' --data-binary @photo.jpg "
        "https://127.0.0.1:3001/predict"
    )


def test_make_clean_refuses_while_anything_serves(harness: RolloutHarness) -> None:
    champion = harness.release(1)
    harness.start(champion)
    command = [sys.executable, refuse_while_serving.__file__]
    done = subprocess.run(
        command, cwd=harness.project.root, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "fettle: this project is served: its router runs, and would lose its files. Fix: `fettle "
        "canary stop`, or Ctrl-C where `fettle serve` runs.\n"
    )
    harness.close()
    assert refuse_while_serving.serving(harness.project) is None


def test_clean_asks_before_it_deletes() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nclean:")[2].splitlines()
    asked = next(at for at, line in enumerate(recipe) if "refuse_while_serving.py" in line)
    deleted = next(at for at, line in enumerate(recipe) if "rm -rf" in line)
    assert asked < deleted
