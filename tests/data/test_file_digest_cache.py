"""Digests of many files: read again only when their stat changed, never trusted too early."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from fettle import manifest
from fettle.data.file_digest_cache import RACY_NS, UNREADABLE, digests


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{at}.jpg" for at in range(3)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]))
    return paths


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = manifest.sha256_file

    def spy(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(manifest, "sha256_file", spy)
    return names


def later() -> int:
    return time.time_ns() + 2 * RACY_NS


def test_it_returns_the_sha256_of_each_file(files: list[Path], tmp_path: Path) -> None:
    found = digests(files, cache=tmp_path / "c" / "stat.json", now_ns=later())
    assert found == [hashlib.sha256(bytes([at])).hexdigest() for at in range(3)]


def test_unchanged_files_are_not_read_again(
    files: list[Path], tmp_path: Path, hashed: list[str]
) -> None:
    first = digests(files, cache=tmp_path / "stat.json", now_ns=later())
    hashed.clear()
    assert digests(files, cache=tmp_path / "stat.json", now_ns=later()) == first
    assert hashed == []


def test_a_changed_file_is_read_again(files: list[Path], tmp_path: Path, hashed: list[str]) -> None:
    digests(files, cache=tmp_path / "stat.json", now_ns=later())
    hashed.clear()
    files[1].write_bytes(b"new")
    found = digests(files, cache=tmp_path / "stat.json", now_ns=later())
    assert hashed == ["1.jpg"]
    assert found[1] == hashlib.sha256(b"new").hexdigest()


def test_a_change_that_keeps_size_and_mtime_is_seen_by_the_ctime(
    files: list[Path], tmp_path: Path
) -> None:
    digests(files, cache=tmp_path / "stat.json", now_ns=later())
    before = files[0].stat()
    files[0].write_bytes(b"\xff")
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    found = digests(files, cache=tmp_path / "stat.json", now_ns=later())
    assert found[0] == hashlib.sha256(b"\xff").hexdigest()


def test_a_file_of_the_last_seconds_is_not_remembered(
    files: list[Path], tmp_path: Path, hashed: list[str]
) -> None:
    now = max(path.stat().st_ctime_ns for path in files)
    for _ in range(2):
        digests(files, cache=tmp_path / "stat.json", now_ns=now)
    assert hashed == ["0.jpg", "1.jpg", "2.jpg"] * 2


def test_a_file_that_cannot_be_read_is_named_so(files: list[Path], tmp_path: Path) -> None:
    files[2].unlink()
    found = digests(files, cache=tmp_path / "stat.json", now_ns=later())
    assert found[2] == UNREADABLE


@pytest.mark.parametrize("text", ["", "[]", "{broken", '{"x": 1}'])
def test_a_broken_cache_costs_only_time(files: list[Path], tmp_path: Path, text: str) -> None:
    cache = tmp_path / "stat.json"
    cache.write_text(text)
    digests(files, cache=cache, now_ns=later())
    assert len(json.loads(cache.read_text())) == 3


def test_a_cache_that_cannot_be_written_costs_only_time(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = digests(files, cache=tmp_path / "file" / "stat.json", now_ns=later())
    assert len(set(found)) == 3
