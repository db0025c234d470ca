"""`fettle doctor`: check this machine and this project, and mend what it is told to."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.run import JsonOption

if TYPE_CHECKING:
    from fettle.project import Project

SENT = "clients send it as `Authorization: Bearer KEY`"
DISK_FREE_MIN_BYTES = 4_000_000_000  # the environment takes 2.5 GB, a run's caches below 1 GB


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check-up: what was looked at, whether it is well, and the next step."""

    what: str
    ok: bool
    found: str
    fix: str = ""


def doctor(
    make_key: Annotated[
        bool, typer.Option("--make-key", help="Make the API key of the server if there is none.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check Python, disk, toolchains, servers and the API key of this project.

    Example: fettle doctor --make-key
    """
    from fettle import project as projects

    home = projects.find()
    os.environ.update(projects.environment(home))
    if make_key:
        from fettle.adapters import bento_store

        path = bento_store.make_key()
        print(f"the API key is in {path}\n  {bento_store.curl_line(port=3000)}", file=sys.stderr)
    findings = [*_machine(home.root), *_toolchains(), *_servers(home)]
    findings += _writable(home)
    if apart := _no_home():
        findings.append(apart)
    else:
        findings += [_key(), _signing_key()]
    if json_:
        print(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        _show(findings)
    if not all(f.ok for f in findings):
        raise typer.Exit(2)


def _machine(root: Path) -> list[Finding]:
    free = shutil.disk_usage(root).free
    sizes = {
        name: sum(p.stat().st_size for p in (root / name).rglob("*") if p.is_file())
        for name in (".dvc/cache", ".fettle", "artifacts", "releases")
        if (root / name).is_dir()
    }
    largest = ", ".join(
        f"{name} {size / 1e6:.0f} MB" for name, size in sorted(sizes.items(), key=lambda s: -s[1])
    )
    return [
        Finding(
            "Python",
            sys.version_info >= (3, 11),
            f"{platform.python_version()} on {platform.machine()}",
            "install Python 3.11 or newer",
        ),
        Finding(
            "disk",
            free >= DISK_FREE_MIN_BYTES,
            f"{free / 1e9:.1f} GB free; {largest or 'nothing made yet'}",
            "free some space: `fettle gc` shows what may go",
        ),
        Finding(
            "bytecode",
            not os.environ.get("PYTHONDONTWRITEBYTECODE"),
            "not written (PYTHONDONTWRITEBYTECODE is set)"
            if os.environ.get("PYTHONDONTWRITEBYTECODE")
            else "cached",
            "unset PYTHONDONTWRITEBYTECODE: every import costs 2 to 8 times more with it",
        ),
    ]


def _toolchains() -> list[Finding]:
    from importlib import metadata

    from fettle import plugins

    findings = []
    for name in plugins.names("runtimes"):
        runtime = plugins.resolve("runtimes", name, where="runtimes")
        state = runtime.available()
        if not state.ok and hasattr(runtime, "TOOLCHAIN"):  # asked for by its targets alone
            found = f"not installed (`{state.install}` makes it)"
            findings.append(Finding(f"runtime {name}", True, found))
            continue
        findings.append(
            Finding(f"runtime {name}", state.ok, state.version or state.reason, state.install)
        )
    try:
        torch = metadata.version("torch")
        findings.append(Finding("torch", True, torch))
    except metadata.PackageNotFoundError:
        findings.append(Finding("torch", False, "not installed", "run `make setup`"))
    return findings


def _servers(home: Project) -> list[Finding]:
    from fettle import server_addresses
    from fettle.adapters import local_servers, shared_servers
    from fettle.errors import FettleError

    try:
        shared = server_addresses.all_of(home.root, os.environ)
    except FettleError as err:
        return [Finding("servers", False, f"{err.what}: {err.got}", str(err.fix))]
    findings = []
    for address in shared:
        wrong = shared_servers.fault(address, os.environ)
        what = f"server {address.variable}"
        found = f"{address.shown}, by {address.place}" if wrong is None else wrong.got
        findings.append(Finding(what, wrong is None, str(found), str(wrong and wrong.fix)))
    kinds: tuple[local_servers.Kind, ...] = ("prefect", "mlflow")
    for kind in kinds:
        if local_servers.shared(home, kind) is None:
            server = local_servers.running(home, kind)
            found = server.url if server else "not up (`fettle ui` starts it)"
            findings.append(Finding(f"server {kind}", True, f"{found}, the project's own"))
    return findings


def _writable(home: Project) -> list[Finding]:
    """Try the folders that a run writes into after the training."""
    from fettle.adapters import preflight

    if _no_home():
        return []
    return [
        Finding(
            one.what, one.ok, str(one.folder) if one.ok else f"{one.folder}: {one.fault}", one.fix
        )
        for one in preflight.folders(home, os.environ)
    ]


def _no_home() -> Finding | None:
    """Say so when keys and releases have no folder at all."""
    from fettle.adapters import bento_store
    from fettle.errors import UserError
    from fettle.release import signing

    try:
        bento_store.key_path()
        signing.key_path(os.environ)
        bento_store.store()
    except (UserError, RuntimeError):
        text = f"HOME is not set, and user {os.getuid()} is not in the system's list"
        return Finding("home folder", False, text, "set HOME to a folder that can be written")
    return None


def _key() -> Finding:
    from fettle.adapters import bento_store

    path = bento_store.key_path()
    there = path.is_file() or bool(os.environ.get("FETTLE_API_KEY"))
    loose = path.is_file() and path.stat().st_mode & 0o077 != 0
    found = (
        "none yet: `fettle serve` makes one; `bentoml serve` by hand answers loopback only "
        "(--make-key makes it now)"
    )
    if there:
        where = "FETTLE_API_KEY" if os.environ.get("FETTLE_API_KEY") else str(path)
        found = f"readable by others: {path}" if loose else f"set in {where}; {SENT}"
    return Finding("API key", not loose, found, f"chmod 600 {path}")


def _signing_key() -> Finding:
    from fettle.release import signing

    path = signing.key_path(os.environ)
    if not path.is_file():
        return Finding("signing key", True, "none yet: the first release makes one")
    loose = path.stat().st_mode & 0o077 != 0
    found = f"readable by others: {path}" if loose else str(path)
    return Finding("signing key", not loose, found, f"chmod 600 {path}")


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]bad[/]"
        text = finding.found if finding.ok else f"{finding.found}. Fix: {finding.fix}"
        table.add_row(mark, finding.what, text)
    Console(highlight=False).print(table)
