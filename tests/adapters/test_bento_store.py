from __future__ import annotations

import shlex
import shutil
import socket
import stat
import sys
from pathlib import Path

import pytest
from served import free_port
from tiny_release import TinyRelease

from fettle.adapters import bento_store
from fettle.errors import OurFault, ProjectError, TamperedError, UserError
from fettle.serving import api_key_file, release_bundle


class Built:
    """A packaged release and its Bento in a store of its own."""

    def __init__(self, root: Path) -> None:
        work = TinyRelease(root / "project")
        self.version = str(work.package().facts.digest)[:12]
        self.release, self.home = work.release, root / "bentoml"
        self.tag = self.build()
        self.folder = self.home / "bentos" / "tiny" / self.version

    def build(self) -> str:
        return bento_store.build(self.release, name="tiny", version=self.version, home=self.home)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built once, from a folder outside of the release."""
    return Built(tmp_path_factory.mktemp("built"))


@pytest.fixture
def key_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this user's own key out of the test."""
    monkeypatch.delenv("FETTLE_API_KEY", raising=False)
    monkeypatch.delenv("FETTLE_API_KEY_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "fettle" / "api_key"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bento_carries_the_release_as_it_is(built: Built) -> None:
    assert built.tag == f"tiny:{built.version}"
    assert files(built.folder / "src") == files(built.release)
    assert release_bundle.verify(built.folder / "src")[1][:12] == built.version
    assert bento_store.bento_folder(built.tag, built.home) == built.folder


def test_a_bento_states_its_requirements_without_an_index(built: Built) -> None:
    stated = (built.folder / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime==" in stated
    assert "torch" not in stated
    everything = b"".join(files(built.folder / "env").values())
    assert b"index-url" not in everything


def test_a_bento_that_is_there_is_kept(built: Built) -> None:
    before = (built.folder / "bento.yaml").read_bytes()  # it holds the time it was built at
    assert built.build() == built.tag
    assert (built.folder / "bento.yaml").read_bytes() == before


def test_a_bento_that_holds_something_else_is_refused(built: Built, tmp_path: Path) -> None:
    home = tmp_path / "bentoml"
    folder = home / "bentos" / "tiny" / built.version
    shutil.copytree(built.folder, folder)
    other = shutil.copytree(built.release, tmp_path / "other")
    (other / "more.txt").write_text("x")
    with pytest.raises(TamperedError) as caught:
        bento_store.build(other, name="tiny", version=built.version, home=home)
    text = str(caught.value)
    assert text.startswith(
        f"the Bento tiny:{built.version} in the store is not this release: got {built.version}; "
        "its sources must digest to "
    )
    assert text.endswith(
        f"Fix: `bentoml delete tiny:{built.version} --yes`, then run `fettle run`, which builds "
        "it again."
    )


def test_a_release_that_bentoml_refuses_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "bentofile.yaml").write_text("service: nothing_here\n")
    with pytest.raises(OurFault) as caught:
        bento_store.build(tmp_path, name="tiny", version="1", home=tmp_path / "bentoml")
    command = f"{shlex.quote(sys.executable)} -m bentoml build . --name tiny --version 1"
    text = str(caught.value)
    assert text.startswith("BentoML could not build tiny:1: got ")
    assert text.endswith(f"Fix: run `{command} --output tag` in {tmp_path} to see it whole.")
    assert "nothing_here" in text


@pytest.mark.parametrize("tag", ["tiny:none", "tiny", "tiny:", ":"])
def test_a_tag_that_is_not_there_is_refused(built: Built, tag: str) -> None:
    with pytest.raises(ProjectError) as caught:
        bento_store.serve_command(tag, home=built.home)
    name, _, version = tag.partition(":")
    assert str(caught.value) == (
        f"no Bento {tag} in the store: got nothing in {built.home / 'bentos' / name / version}; a "
        "tag reads NAME:VERSION. Fix: see `bentoml list`, or run `fettle run`, which builds the "
        "last release again."
    )


def test_the_command_names_the_bento_by_its_path(built: Built) -> None:
    command = bento_store.serve_command(built.tag, port=3001, home=built.home)
    assert command == [
        *(sys.executable, "-m", "bentoml", "serve", str(built.folder)),
        *("--host", "127.0.0.1", "--port", "3001"),
        *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "60"),
    ]


def test_the_store_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "set"))
    assert bento_store.store() == tmp_path / "set" / "bentos"
    assert bento_store.store(tmp_path) == tmp_path / "bentos"
    monkeypatch.delenv("BENTOML_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bento_store.store() == tmp_path / "bentoml" / "bentos"


def test_each_server_has_a_home_of_its_own_and_is_quiet(tmp_path: Path) -> None:
    homes = {
        bento_store.serve_home(tmp_path, host=host, port=port)
        for host in ("127.0.0.1", "::1")
        for port in (3000, 3001)
    }
    assert len(homes) == 4
    assert all(home.parent == tmp_path / "serve" for home in homes)
    given = {"PATH": "x", "BENTOML_HOME": "the store"}
    assert bento_store.serve_environment(given, tmp_path) == {
        "PATH": "x",
        "BENTOML_HOME": str(tmp_path),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_a_port_that_is_held_is_refused() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError) as caught:
            bento_store.check_port("127.0.0.1", port)
    assert str(caught.value) == (
        f"the server cannot listen on 127.0.0.1 port {port}: got Address already in use; an "
        "address of this machine, and a port that no other server holds. Fix: stop that server, "
        f"or take another port: `fettle serve --port {port + 1}`."
    )
    bento_store.check_port("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.7", "no address"])
def test_an_address_that_is_not_this_machines_is_refused(host: str) -> None:
    with pytest.raises(UserError, match=f"^the server cannot listen on {host} port "):
        bento_store.check_port(host, free_port())


def test_the_curl_line_needs_no_key_where_there_is_none(key_beside: Path) -> None:
    assert not key_beside.exists()
    assert bento_store.curl_line(port=3001, image="a.png") == (
        "curl -H 'content-type: image/png' --data-binary @a.png http://127.0.0.1:3001/predict"
    )


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_the_curl_line_goes_past_a_proxy(
    key_beside: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    key_beside.unlink(missing_ok=True)
    assert "--noproxy" not in bento_store.curl_line()
    monkeypatch.setenv(name, "http://proxy.corp:8080")
    assert bento_store.curl_line().startswith("curl --noproxy '*' -H 'content-type: image/jpeg' ")


def test_the_curl_line_reads_the_key_and_does_not_show_it(key_beside: Path) -> None:
    assert bento_store.make_key() == key_beside
    assert stat.S_IMODE(key_beside.stat().st_mode) == 0o600
    line = bento_store.curl_line()
    assert line == (
        "curl -H 'content-type: image/jpeg' "
        f'-H "Authorization: Bearer $(cat "{key_beside}")" '
        "--data-binary @photo.jpg http://127.0.0.1:3000/predict"
    )
    assert key_beside.read_text().strip() not in line


def test_the_curl_line_takes_the_variable_where_it_is_set(
    key_beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(api_key_file.KEY, "secret-of-mine")
    assert '-H "Authorization: Bearer $FETTLE_API_KEY" ' in bento_store.curl_line()


@pytest.mark.parametrize(
    ("host", "near"),
    [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "[::1]"), ("192.0.2.7", "192.0.2.7")],
)
def test_the_curl_line_names_an_address_that_answers(
    key_beside: Path, host: str, near: str
) -> None:
    assert bento_store.curl_line(host=host).endswith(f" http://{near}:3000/predict")


def test_nothing_listening_is_not_ready() -> None:
    assert bento_store.ready(f"http://127.0.0.1:{free_port()}") is False
