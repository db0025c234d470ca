"""Fetch the files of a known data set into a cache folder: from URLs, else from a Debian package.

Each file is known by the SHA-256 of its plain content, so it does not matter who serves it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fettle.data import idx_format
from fettle.errors import DataError

DOWNLOAD_TIMEOUT_S = 20.0  # felt right: without a network, the next way is tried soon
APT_TIMEOUT_S = 300.0


def load(folder: Path, name: str, sha256: str) -> bytes:
    """Read the plain content of `name` (gzipped or not) from a folder and check its digest.

    Raises DataError when it is missing or its content is not the known one.
    """
    path = idx_format.find(folder, name)
    if path is None:
        raise DataError(
            f"{folder} lacks {name}",
            rule=f"the file is there as {name}.gz or as {name}",
            fix="put it there, or name no folder to have it fetched",
        )
    content = idx_format.unpack(path.read_bytes(), str(path))
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise DataError(
            f"{path} is not the known file",
            got=f"sha256 {digest[:12]} of its uncompressed content",
            rule=f"it must be {sha256[:12]}",
            fix="delete it and fetch it again",
        )
    return content


def holds(folder: Path, files: Mapping[str, str]) -> bool:
    """Tell whether a folder has every file with the right content."""
    try:
        for name, sha256 in files.items():
            load(folder, name, sha256)
    except DataError:
        return False
    return True


def fetch(
    cache: Path,
    files: Mapping[str, str],
    *,
    urls: Sequence[str],
    package: str,
    download: Callable[[str], bytes] | None = None,
    unpack_package: Callable[[str, Path], None] | None = None,
) -> None:
    """Fill `cache` with `files` ({name: sha256}), unless it holds them already.

    Tries each of `urls` (a folder that serves NAME.gz), then Debian's `package`. Raises DataError
    with every way tried when all fail. The two callables are for tests.
    """
    if holds(cache, files):
        return
    cache.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(dir=cache.parent) as temporary:
        fresh = Path(temporary) / "files"
        for way in [*urls, f"Debian package {package}"]:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            try:
                if way in urls:
                    _download_all(way, files, fresh, download or download_bytes)
                else:
                    (unpack_package or unpack_debian)(package, fresh)
                for name, sha256 in files.items():
                    load(fresh, name, sha256)
            except (OSError, subprocess.SubprocessError, DataError, ValueError) as err:
                failures.append(f"{way} ({_first_line(err)})")
                continue
            shutil.rmtree(cache, ignore_errors=True)
            fresh.rename(cache)
            return
    raise DataError(
        f"the files could not be fetched: {', '.join(files)}",
        got="; ".join(failures),
        rule="they come from the listed URLs, else from the Debian package",
        fix=f"put them into a folder and name it with `fettle run --data FOLDER`, or into {cache}",
    )


def _download_all(
    base: str, files: Mapping[str, str], into: Path, download: Callable[[str], bytes]
) -> None:
    for name in files:
        (into / f"{name}.gz").write_bytes(download(f"{base.rstrip('/')}/{name}.gz"))


def download_bytes(url: str) -> bytes:
    """Get one file by HTTP."""
    from urllib.request import urlopen

    with urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response:
        data: bytes = response.read()
    return data


def unpack_debian(package: str, into: Path) -> None:
    """Get a Debian package without root and copy every file below usr/share/datasets to `into`.

    Raises FileNotFoundError where there is no apt-get, SubprocessError when it fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        _call(["apt-get", "download", package], where)
        debs = sorted(str(p.name) for p in where.glob("*.deb"))
        _call(["dpkg-deb", "-x", debs[-1] if debs else f"{package}.deb", "tree"], where)
        for path in sorted((where / "tree" / "usr" / "share" / "datasets").rglob("*")):
            if path.is_file():
                shutil.copyfile(path, into / path.name)


def _call(command: list[str], where: Path) -> None:
    """Run a tool; its last words become the error's text."""
    done = subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=APT_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise subprocess.SubprocessError(words[-1] if words else f"exit {done.returncode}")


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [""])[0].rstrip(".") or type(err).__name__
