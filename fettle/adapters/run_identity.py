"""Run identity: whose run it is that stands open on a tracking server.

A server may be a team's, so a run is tagged with its project, its machine and its process; only a
run whose three are ours, and whose process is dead, may be ended by another run
(fettle/adapters/crash_recovery.py).
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fettle import manifest
from fettle.adapters import process_identity
from fettle.adapters.process_identity import ProcessIdentity
from fettle.project import Project

PROJECT, HOST, PROCESS = "fettle.project", "fettle.host", "fettle.process"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """A run's project (a random id that lies in .fettle), machine and process."""

    project: str
    host: str
    process: str

    def tags(self) -> dict[str, str]:
        """Return the tags that say so."""
        return {PROJECT: self.project, HOST: self.host, PROCESS: self.process}

    def owned(self) -> dict[str, str]:
        """Return the tags of every run of this project on this machine."""
        return {PROJECT: self.project, HOST: self.host}

    def left_behind(self, tags: Mapping[str, str]) -> bool:
        """Say whether a run with these tags is this project's, of this machine, and its process is
        gone; what cannot be told is not.
        """
        if {PROJECT: tags.get(PROJECT), HOST: tags.get(HOST)} != self.owned():
            return False
        with suppress(ValueError):
            pid, born, place = tags.get(PROCESS, "").split(" ")
            process = ProcessIdentity(int(pid), float(born))
            boot, namespace = place.split("/")
            here_boot, here_namespace = _place().split("/")
            if boot != here_boot:  # the machine was started again since
                return True
            # a container's processes cannot be seen from another
            return namespace == here_namespace and not process.alive()
        return False


def of_this_process(project: Project) -> RunIdentity:
    """Return the identity of a run of `project` in this process; the project gets its id."""
    me = process_identity.me()
    return RunIdentity(_id(project), socket.gethostname(), f"{me.pid} {me.born:.2f} {_place()}")


def _id(project: Project) -> str:
    path = project.state / "project_id"
    with suppress(OSError, ValueError):
        return uuid.UUID(path.read_text().strip()).hex
    made = uuid.uuid4().hex
    manifest.write_text(path, f"{made}\n")
    return made


def _place() -> str:
    """Return what a process number means something in: this boot, and its namespace."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    with suppress(OSError):
        return f"{boot.read_text().strip()}/{namespace.stat().st_ino}"
    return "/"  # no Linux
