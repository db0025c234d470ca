"""Fetching: each way in its turn, content known by its digest, nothing half-fetched kept."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest

from fettle.data import dataset_download
from fettle.errors import DataError

CONTENT = {"images": b"seventy thousand", "labels": b"ten kinds"}
FILES = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
URLS = ["https://one.invalid/data", "https://two.invalid/data/"]


def served(url: str) -> bytes:
    name = url.rpartition("/")[2].removesuffix(".gz")
    return gzip.compress(CONTENT[name])


def down(url: str) -> bytes:
    raise OSError("no route to host")


def unpack(package: str, into: Path) -> None:
    for name, data in CONTENT.items():
        (into / name).write_bytes(data)


def no_apt(package: str, into: Path) -> None:
    raise FileNotFoundError(2, "No such file or directory", "apt-get")


class Ways:
    """Count what was tried."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    def download(self, url: str) -> bytes:
        self.tried.append(url)
        return served(url)

    def unpack(self, package: str, into: Path) -> None:
        self.tried.append(package)
        unpack(package, into)


def fetch(cache: Path, **how: object) -> None:
    dataset_download.fetch(cache, FILES, urls=URLS, package="some-data", **how)  # type: ignore[arg-type] # the doubles


def test_the_first_url_is_enough(tmp_path: Path) -> None:
    ways = Ways()
    fetch(tmp_path / "c", download=ways.download, unpack_package=ways.unpack)
    assert ways.tried == [f"{URLS[0]}/images.gz", f"{URLS[0]}/labels.gz"]
    assert dataset_download.load(tmp_path / "c", "images", FILES["images"]) == CONTENT["images"]


def test_what_is_in_the_cache_is_not_fetched_again(tmp_path: Path) -> None:
    fetch(tmp_path / "c", download=served)
    ways = Ways()
    fetch(tmp_path / "c", download=ways.download, unpack_package=ways.unpack)
    assert ways.tried == []


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    fetch(tmp_path / "c", download=served)
    (tmp_path / "c" / "labels.gz").write_bytes(b"half")
    fetch(tmp_path / "c", download=served)
    assert dataset_download.holds(tmp_path / "c", FILES)


def test_without_the_urls_the_debian_package_is_taken(tmp_path: Path) -> None:
    fetch(tmp_path / "c", download=down, unpack_package=unpack)
    assert dataset_download.holds(tmp_path / "c", FILES)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_url_that_serves_something_else_is_passed_over(tmp_path: Path) -> None:
    fetch(tmp_path / "c", download=lambda _: b"<html>login</html>", unpack_package=unpack)
    assert dataset_download.holds(tmp_path / "c", FILES)


def test_when_every_way_fails_each_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    with pytest.raises(DataError) as caught:
        fetch(cache, download=down, unpack_package=no_apt)
    assert str(caught.value) == (
        "the files could not be fetched: images, labels: got https://one.invalid/data (no route to "
        "host); https://two.invalid/data/ (no route to host); Debian package some-data ([Errno 2] "
        "No such file or directory: 'apt-get'); they come from the listed URLs, else from the "
        "Debian package. Fix: put them into a folder and name it with `fettle run --data FOLDER`, "
        f"or into {cache}."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        dataset_download.load(tmp_path, "images", FILES["images"])
    assert str(caught.value) == (
        f"{tmp_path} lacks images; the file is there as images.gz or as images. Fix: put it there, "
        "or name no folder to have it fetched."
    )


def test_a_file_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"other")
    got = hashlib.sha256(b"other").hexdigest()[:12]
    with pytest.raises(DataError) as caught:
        dataset_download.load(tmp_path, "images", FILES["images"])
    assert str(caught.value) == (
        f"{tmp_path / 'images'} is not the known file: got sha256 {got} of its uncompressed "
        f"content; it must be {FILES['images'][:12]}. Fix: delete it and fetch it again."
    )


def test_a_package_is_unpacked_without_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], cwd: Path, **how: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if command[0] == "apt-get":
            (cwd / "some-data_1_all.deb").touch()
        else:
            folder = cwd / "tree" / "usr" / "share" / "datasets" / "some"
            folder.mkdir(parents=True)
            (folder / "images.gz").write_bytes(b"data")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    dataset_download.unpack_debian("some-data", tmp_path)
    assert calls == [
        ["apt-get", "download", "some-data"],
        ["dpkg-deb", "-x", "some-data_1_all.deb", "tree"],
    ]
    assert (tmp_path / "images.gz").read_bytes() == b"data"


def test_a_tool_s_last_words_become_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "", "reading\nE: Unable to locate it\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(subprocess.SubprocessError, match=r"^E: Unable to locate it$"):
        dataset_download.unpack_debian("some-data", tmp_path)
