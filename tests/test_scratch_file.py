"""Scratch file: no name, bytes by offset, and a small or full disk said in words."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fettle import scratch_file
from fettle.errors import TransientError
from fettle.scratch_file import ScratchFile, in_words

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


def test_what_was_appended_is_read_back_by_its_offset(tmp_path: Path) -> None:
    file = ScratchFile(tmp_path / "made" / "anew", what="bytes")
    offsets = [file.append(part) for part in (b"one", b"", b"three")]
    assert offsets == [0, 3, 3]
    assert file.size_bytes == 8
    assert (file.read(0, 3), file.read(3, 5), file.read(2, 3)) == (b"one", b"three", b"eth")
    assert file.read(3, 0) == b""


def test_reading_past_the_end_is_no_silence(tmp_path: Path) -> None:
    file = ScratchFile(tmp_path, what="the pixels")
    file.append(b"abc")
    with pytest.raises(EOFError, match="the pixels: nothing at 3"):
        file.read(1, 4)


def test_nothing_is_left_of_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from fettle.scratch_file import "
        "ScratchFile; file = ScratchFile(Path(sys.argv[1]), what='x'); file.append(bytes(9999)); "
        "print(file.size_bytes, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-9, "9999\n")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TransientError) as caught:
        ScratchFile(tmp_path, what="the pixels of 9 train images", need_bytes=2**45)
    free = str(caught.value).partition("to write, ")[2].partition(" free in")[0]
    assert str(caught.value) == (
        "the disk is too small for the pixels of 9 train images: got 35.2 TB to write, "
        f"{free} free in {tmp_path}; they lie in a temporary file while the stage runs, and 268 MB "
        "stay free for the artefacts. Fix: free some space (`fettle doctor` says how much is "
        "left), or move the project to a larger disk, and run again."
    )
    assert list(tmp_path.iterdir()) == []


def test_what_fits_but_for_the_artefacts_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_file, "SPARE_BYTES", 2**60)
    with pytest.raises(TransientError, match=r"got 1 bytes to write"):
        ScratchFile(tmp_path, what="x", need_bytes=1)


@on_linux
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_in_the_middle_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    file = ScratchFile(tmp_path, what="the encoded images")
    file.append(bytes(1500))
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(file, "_file", full)
        if code == errno.EDQUOT:  # which takes a quota to see
            monkeypatch.setattr(os, "write", refusing(code))
        with pytest.raises(TransientError) as caught:
            file.append(b"more")
    assert str(caught.value) == (
        f"the disk is full: got No space left on device in {tmp_path}, after 1.5 kB of the encoded "
        "images; they lie in a temporary file while the stage runs, which is gone now. Fix: free "
        "some space (`fettle doctor` says how much is left) and run again."
    )


def refusing(code: int) -> Callable[..., int]:
    """A write that the kernel refuses with `code`."""

    def write(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return write


def test_another_fault_of_the_disk_keeps_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ScratchFile(tmp_path, what="x")
    monkeypatch.setattr(os, "write", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        file.append(b"more")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(12, "12 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (30_105_600_000, "30.1 GB")],
)
def test_a_size_is_said_in_its_unit(size_bytes: int, text: str) -> None:
    assert in_words(size_bytes) == text
