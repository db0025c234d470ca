"""Damaged files: torn and alien bytes in each file that the supervisor reads, and a full disk."""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.chaos_campaign.campaign_project import CampaignProject
from benchmarks.chaos_campaign.injected_fault import FaultKind, InjectedFault, nothing, processes

FULL_S = 5.0
CHUNK_BYTES = 2**20
# read as lines that are appended to: what a full disk tears, or a stranger adds, is at their end
LINES = ("router/attempts.log", "ROLLOUT/labels.jsonl", "ROLLOUT/shadow.jsonl")
# read whole
DOCUMENTS = (
    *("serving.json", "controller.json", "watchdog.json", "problems.json", "faults.json"),
    *("inbox/1.json", "router/switch", "router/nginx.pid", "arms/CHAMPION/server.json"),
    *("arms/CHALLENGER/server.json", "ROLLOUT/status.json", "ROLLOUT/begin.json"),
    *("ROLLOUT/aliases.json", "ROLLOUT/aliases.done", "ROLLOUT/journal.tip"),
    *("ROLLOUT/journal.jsonl", "lease"),
)
ALIEN = (b"\xff\xfe\x00\x9f" * 16, b"\xed\xa0\x80", b"[" * 5000, b"null", b'{"a": 1}', b"1e999")


def damage(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Damage one file; in half of all cases the controller then begins anew, and reads it."""
    name = rng.choice([*LINES, *DOCUMENTS])
    path = _path(project, name)
    how = "no such file"
    if path is not None:
        with suppress(OSError):
            how = _append(path, rng) if name in LINES else _replace(path, rng)
    target = f"{name}: {how}"
    if rng.random() < 0.5:
        for one in processes(project, "controller", rng):
            with suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)
        target += ", then kill -9 of the controller"
    return InjectedFault(FaultKind.BYTES, target, 0.0, nothing)


def _path(project: CampaignProject, name: str) -> Path | None:
    with suppress(Exception):  # serving.json may be what was damaged before
        serving = project.place.serving()
        assert serving is not None
        names = {
            "ROLLOUT": f"rollouts/{serving.rollout}" if serving.rollout else None,
            "CHAMPION": serving.champion.release if serving.champion else None,
            "CHALLENGER": serving.challenger.release if serving.challenger else None,
        }
        for word, meant in names.items():
            if word in name and meant is None:
                return None
            name = name.replace(word, str(meant))
        return project.place.folder / name
    return None


def _append(path: Path, rng: random.Random) -> str:
    """Add what is no line at the end of a file that others append to."""
    whole = path.read_bytes() if path.is_file() else b""
    kinds = ["half a line", "alien bytes", "many alien lines"]
    how = rng.choice(kinds)
    last = whole.rstrip(b"\n").rpartition(b"\n")[2]
    added = {
        "half a line": last[: rng.randint(1, max(1, len(last) - 1))],
        "alien bytes": rng.choice(ALIEN) + b"\n",
        "many alien lines": b"".join(rng.choice(ALIEN) + b"\n" for _ in range(40)),
    }[how]
    with path.open("ab") as out:
        out.write(added)
    return how


def _replace(path: Path, rng: random.Random) -> str:
    """Make of a document what a power cut, or somebody's editor, leaves of it."""
    whole = path.read_bytes() if path.is_file() else b""
    how = rng.choice(["cut in half", "emptied", "alien bytes", "a byte changed", "deleted"])
    match how:
        case "cut in half":
            path.write_bytes(whole[: len(whole) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "alien bytes":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.choice(ALIEN))
        case "a byte changed" if whole:
            at = rng.randrange(len(whole))
            path.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
            )
        case _:
            path.unlink(missing_ok=True)
    return how


def full_disk(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Fill the disk that the state lies on, for a while; without one, let no file grow."""
    if project.on_disk_of_its_own:
        ballast = project.place.folder / "ballast"
        _fill(ballast)
        target = "all of the state's disk"
        undo: Callable[[], None] = ballast.unlink
    else:
        held = [one for name in ("controller", "watchdog") for one in processes(project, name, rng)]
        _limit(held, 0)
        target, undo = "no file grows", lambda: _limit(held, -1)
    if rng.random() < 0.5:
        for one in processes(project, "controller", rng):
            with suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)
        target += ", and kill -9 of the controller"
    return InjectedFault(FaultKind.DISK, target, FULL_S, undo)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as out:
        for size in (CHUNK_BYTES, 4096):
            try:
                while True:
                    os.posix_fallocate(out.fileno(), out.seek(0, os.SEEK_END), size)
            except OSError as err:
                if err.errno != errno.ENOSPC:
                    raise


def _limit(found: list[psutil.Process], most_bytes: int) -> None:
    for one in found:
        with suppress(psutil.Error):
            one.rlimit(psutil.RLIMIT_FSIZE, (most_bytes, -1))
