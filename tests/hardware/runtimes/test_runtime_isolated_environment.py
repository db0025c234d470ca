"""An environment is made from its lock, whole or not at all. A wheel of our own stands for PyPI."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from fettle.errors import TargetError
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.isolated.toolchain import Toolchain

CODE = "def answer():\n    return 42\n"


def wheel(folder: Path) -> Path:
    """Write a pure wheel `tinytool` 1.5 to `folder`."""
    info = "tinytool-1.5.dist-info"
    files = {
        "tinytool.py": CODE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tinytool\nVersion: 1.5\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def listed(name: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        return f"{name},sha256={digest.decode()},{len(text)}"

    files[f"{info}/RECORD"] = "\n".join([listed(*item) for item in files.items()]) + "\n"
    path = folder / "tinytool-1.5-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    """A toolchain whose lock names our wheel; its environments go to a folder of the test."""
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest = hashlib.sha256(wheel(tmp_path).read_bytes()).hexdigest()
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "tiny.txt").write_text(f"tinytool==1.5 --hash=sha256:{digest}\n")
    return Toolchain(
        name="tiny",
        title="Tiny",
        requirements=("tinytool[all]>=1.5",),
        pythons=((3, 11), (3, 14)),
        download_mb=1,
        disk_mb=30,
        minutes=1,
        folder=tmp_path,
    )


def refusal(toolchain: Toolchain) -> str:
    with pytest.raises(TargetError) as caught:
        toolchain_environment.install(toolchain, say=print)
    return str(caught.value)


@pytest.mark.toolchain  # a real venv, and pip
def test_one_is_made_from_its_lock_once_and_in_place_of_a_half_made(toolchain: Toolchain) -> None:
    said: list[str] = []
    place = toolchain_environment.folder(toolchain)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / "left").touch()  # as after kill -9 during pip
    assert toolchain_environment.find(toolchain) is None
    made = toolchain_environment.install(toolchain, say=said.append)
    assert said == [f"Tiny: about 1 MB to download, 30 MB on disk at {place}, 1 min"]
    assert made.packages["tinytool"] == "1.5"
    assert made == toolchain_environment.find(toolchain)
    assert not (place / "left").exists()
    code = "import sys, tinytool; print(tinytool.answer(), sys.prefix)"
    done = subprocess.run([made.python, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout == f"42 {place}\n"
    assert toolchain_environment.install(toolchain, say=said.append) == made
    assert said[1:] == [f"Tiny is installed already, at {place}"]
    state = toolchain_environment.availability(toolchain)
    assert (state.ok, state.version, state.reason, state.install) == (True, "1.5", None, None)


@pytest.mark.parametrize("stamp", ["", "{", "[]", "{}", '{"python": "3.11.7"}', '{"packages": 1}'])
def test_a_damaged_stamp_counts_as_none(toolchain: Toolchain, stamp: str) -> None:
    place = toolchain_environment.folder(toolchain)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / toolchain_environment.STAMP).write_text(stamp)
    assert toolchain_environment.find(toolchain) is None


def test_one_whose_python_went_counts_as_none(toolchain: Toolchain) -> None:
    place = toolchain_environment.folder(toolchain)
    (place / "bin").mkdir(parents=True)
    (place / toolchain_environment.STAMP).write_text(json.dumps({"python": "3", "packages": {}}))
    (place / "bin" / "python").symlink_to(sys.executable)
    assert toolchain_environment.find(toolchain) is not None
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").symlink_to(place / "gone")
    assert toolchain_environment.find(toolchain) is None


@pytest.mark.toolchain  # a real venv, and pip
def test_what_pip_refuses_is_told_in_its_own_last_lines_and_leaves_nothing(
    toolchain: Toolchain,
) -> None:
    toolchain.lock.write_text(f"tinytool==1.5 --hash=sha256:{'0' * 64}\n")
    text = refusal(toolchain)
    assert text.startswith("the toolchain tiny could not be installed: got ")
    assert f"Expected sha256 {'0' * 64}" in text
    assert text.endswith(
        "; its environment is made of tiny.txt, with hashes checked. Fix: see to what pip says "
        "(HTTPS_PROXY names a proxy, PIP_INDEX_URL a mirror), and run it again: nothing half-made "
        "was left."
    )
    assert not toolchain_environment.folder(toolchain).exists()


def test_a_disk_that_fills_up_on_the_way_is_told_with_the_way_out(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv.py").write_text(
        "import pathlib, sys\n"
        "(pathlib.Path(sys.argv[-1]) / 'lib').mkdir(parents=True)\n"
        "raise OSError(28, 'No space left on device')\n"
    )
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "venv.py"}" "$@"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    text = refusal(toolchain)
    assert "OSError: [Errno 28] No space left on device; its environment" in text
    assert text.endswith(
        "Fix: free 30 MB there, or set FETTLE_TOOLCHAINS to a folder on a larger disk."
    )
    assert not toolchain_environment.folder(toolchain).exists()


def test_a_disk_without_room_is_told_before_anything_is_made(toolchain: Toolchain) -> None:
    large = dataclasses.replace(toolchain, disk_mb=10**9)
    free_mb = shutil.disk_usage(toolchain.folder).free // 1_000_000
    text = refusal(large)
    assert text.startswith("there is no room for the toolchain tiny: got ")
    assert abs(int(text.split("got ")[1].split(" MB free")[0]) - free_mb) < 10_000
    assert "it takes 1000000000 MB. Fix: free 1000000000 MB there, or set FETTLE_TOOL" in text
    assert not toolchain_environment.folder(toolchain).exists()


def test_a_python_that_it_has_no_packages_for_is_told_before_anything_is_made(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    assert refusal(dataclasses.replace(toolchain, pythons=((3, 8), (3, 10)))) == (
        f"Tiny has no packages for this Python: got {platform.python_version()}; its lock is for "
        "Python 3.8 to 3.10. Fix: install fettle with such a Python, or drop its targets "
        "(params.yaml: targets)."
    )
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_told(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path / "file" / "below"))
    assert refusal(toolchain) == (
        f"the folder of toolchains cannot be written: got {tmp_path}/file/below: Not a directory. "
        "Fix: set FETTLE_TOOLCHAINS to a folder that you may write to."
    )
    assert not toolchain_environment.availability(toolchain).ok


def test_a_second_install_waits_for_the_first(toolchain: Toolchain) -> None:
    place = toolchain_environment.folder(toolchain)
    place.parent.mkdir(parents=True)
    hold = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(1)"
    )
    command = [sys.executable, "-c", hold, f"{place}.busy"]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        began = time.monotonic()
        large = dataclasses.replace(toolchain, disk_mb=10**9)  # ends once it may begin
        with pytest.raises(TargetError, match="there is no room"):
            toolchain_environment.install(large, say=said.append)
        assert time.monotonic() - began > 0.5
    assert said == ["another process is installing it: waiting for that one"]


def test_one_that_is_whole_needs_nothing_written(toolchain: Toolchain) -> None:
    """A cache that an administrator filled may be read-only for its users."""
    place = toolchain_environment.folder(toolchain)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    stamp = {"python": "3", "packages": {"tinytool": "1.5"}}
    (place / toolchain_environment.STAMP).write_text(json.dumps(stamp))
    toolchain_environment.install(toolchain, say=print)
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_another_lock_is_another_folder(toolchain: Toolchain) -> None:
    before = toolchain_environment.folder(toolchain)
    toolchain.lock.write_text(toolchain.lock.read_text() + "# one more line\n")
    assert toolchain_environment.folder(toolchain) != before
    assert toolchain_environment.folder(toolchain).parent == before.parent


def test_a_missing_one_is_unavailable_and_says_what_to_run(toolchain: Toolchain) -> None:
    state = toolchain_environment.availability(toolchain)
    assert (state.ok, state.version) == (False, None)
    assert state.reason == "the toolchain tiny is not installed"
    assert state.install == "fettle targets install tiny"
    with pytest.raises(TargetError) as caught:
        toolchain_environment.python(toolchain)
    assert str(caught.value) == (
        "the toolchain tiny is not installed: got no whole environment at "
        f"{toolchain_environment.folder(toolchain)}; a run installs nothing by itself. Fix: run "
        "`fettle targets install tiny`, or drop its targets (params.yaml: targets)."
    )


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"FETTLE_TOOLCHAINS": "/given", "XDG_CACHE_HOME": "/cache"}, "/given"),
        ({"XDG_CACHE_HOME": "/cache", "HOME": "/home/me"}, "/cache/fettle/toolchains"),
        ({"XDG_CACHE_HOME": "not/absolute", "HOME": "/me"}, "/me/.cache/fettle/toolchains"),
        ({"HOME": "/me"}, "/me/.cache/fettle/toolchains"),
    ],
)
def test_the_folder_follows_the_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("FETTLE_TOOLCHAINS", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(toolchain_environment.root()) == expected


@pytest.mark.parametrize("name", ["a b", "q'uote", "d$ollar", "p%20", "semi;colon", "tab\t"])
def test_a_path_that_toolchains_break_on_is_refused(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """IREE's linker is called through a shell, unquoted: seen to fail, or to run the name."""
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path / name))
    assert refusal(toolchain) == (
        f"the folder of toolchains has a path that toolchains cannot take: got '{tmp_path}/{name}';"
        " they hand it to a shell unquoted: letters, digits and / . _ , + @ : = ~ - only. Fix: set "
        "FETTLE_TOOLCHAINS to another folder."
    )
    assert not toolchain_environment.availability(toolchain).ok
    assert not (tmp_path / name).exists()


def test_a_folder_named_in_any_language_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path / "Küche-日本"))
    assert toolchain_environment.root() == tmp_path / "Küche-日本"


def test_no_home_at_all_is_unavailable_not_a_traceback(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FETTLE_TOOLCHAINS")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:  # as for a user without HOME and without an entry in passwd
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    state = toolchain_environment.availability(toolchain)
    assert not state.ok
    assert state.reason == (
        "there is no folder for toolchains: Could not determine home directory."
    )
