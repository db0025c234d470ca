"""Supervisor start and stop for a project; releases are pinned before they are handed to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fettle import import_isolation, manifest
from fettle.adapters import bento_store, local_servers, process_identity
from fettle.errors import BusyError, FettleError, ProjectError, TransientError, UserError
from fettle.project import Project
from fettle.release import release_store, signing
from fettle.rollout.router import certificates, metrics_access, model_servers, nginx_process
from fettle.rollout.router.nginx_config import Routes
from fettle.rollout.supervisor import (
    journal_anchor,
    log_rotation,
    notification,
    verified_copy,
    watchdog,
)
from fettle.rollout.supervisor import state_layout as places
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout
from fettle.serving import api_key_file, authentication

START_S = 75.0  # up in 0.5 s on an idle core; while a rollout goes on, when its releases answer
AGAIN_S, FOLLOW_S = 15.0, 0.2
STOP_S = 60.0  # the releases answer what they began, at most 35 s


def layout_of(project: Project) -> StateLayout:
    """Return the supervisor's folder of a project."""
    return StateLayout(project.state / "canary")


def running(place: StateLayout) -> bool:
    """Say whether a supervisor watches this project."""
    return watchdog.running(place) is not None


def pin(project: Project, named: str) -> PinnedRelease:
    """Find the release that a digest, a Bento tag or a folder names, and verify its bytes.

    Raises ProjectError when there is none, or more than one; TamperedError when it was changed.
    """
    short = named.rpartition(":")[2].rstrip("/").rpartition("/")[2]
    found = [
        path
        for path in sorted(project.releases.glob(f"{short}*"))
        if path.is_dir() and not path.name.startswith(".")
    ]
    if not short or len(found) != 1:
        raise ProjectError(
            f"{named!r} names {'no' if not found else 'more than one'} release",
            got=", ".join(path.name for path in found) or "nothing like it in releases/",
            rule="a release is named by its digest (its first digits suffice), tag or folder",
            fix="see `ls releases`, or run `fettle run`, which makes one",
        )
    folder = found[0]
    name = json.loads((folder / "release.json").read_text())["name"]
    release_store.verify_named(folder)
    tag = f"{name}:{folder.name}"
    signing.verify_release(folder, bento_store.bento_folder(tag), os.environ)
    return PinnedRelease(folder.name, tag, str(folder))


def last_release(project: Project) -> PinnedRelease:
    """Pin the newest release of the project.

    Raises ProjectError before the first run.
    """
    places_of_last = [project.last, *project.state.glob("ws/*/.fettle/last.json")]
    newest = max(
        (path for path in places_of_last if path.is_file()),
        key=lambda path: path.stat().st_mtime,
        default=None,
    )
    if newest is None:
        raise ProjectError("there is no release yet", fix="run `fettle run` first")
    last = json.loads(newest.read_text())
    made = pin(project, str(last["release"]["digest"])[: manifest.SHORT])
    return replace(made, version=str(last["release"]["model_version"]))


def begin_serving(
    project: Project,
    *,
    host: str | None,
    port: int | None,
    champion: PinnedRelease | None,
    certificate: str | None = None,
    certificate_key: str | None = None,
    insecure: bool = False,
) -> ServingState:
    """Write what shall serve, and where, unless it is written already; return it.

    What is None stays as it was served last: the address, the port, TLS. `insecure` drops TLS.
    Makes the API key of this user if there is none yet.

    Raises UserError when `host` is no loopback and there is no API key or no TLS, the port is
    taken, or the certificate cannot serve.
    """
    place = layout_of(project)
    before = place.serving()
    kept_tls = before is not None and certificate is None and certificate_key is None
    if before is not None and kept_tls and not insecure:
        certificate, certificate_key = before.certificate, before.certificate_key
    asked, host = host, host or (before.host if before else bento_store.LOOPBACK)
    port = port or (before.port if before else bento_store.PORT)
    authentication.check_bind(host, api_key_file.read(os.environ))
    metrics_access.networks(os.environ)
    notification.check(os.environ)
    journal_anchor.check(os.environ, place.folder)
    certificates.check(_path(certificate), _path(certificate_key))
    if not insecure and certificate is None and asked is not None:
        check_tls(asked)
    if before is not None and (nginx_alive(place) or running(place)):
        _check_same(before, host, port, certificate)
        return before
    nginx_process.end_orphans(place.router)  # of a killed master: they hold the port
    bento_store.check_port(host, port)
    if api_key_file.read(os.environ) is None:
        bento_store.make_key()
    control, feedback = [one for one in model_servers.free_ports(3) if one != port][:2]
    kept = before or ServingState(host, port, control, feedback)
    made = replace(
        kept,
        host=host,
        port=port,
        control=control,
        feedback=feedback,
        champion=kept.champion or champion,
        certificate=certificate,
        certificate_key=certificate_key,
    )
    check_routes(place, made)
    place.write_serving(made)
    return made


def _check_same(before: ServingState, host: str, port: int, certificate: str | None) -> None:
    """Raise BusyError where what serves already has another address or certificate."""
    if (before.host, before.port) != (host, port):
        raise BusyError(
            "this project is served already, at another address",
            got=f"{host} port {port}",
            rule=f"one address a project: {before.host} port {before.port}",
            fix="leave --host and --port out, or stop it first: `fettle canary stop`",
        )
    if certificate not in (None, before.certificate):
        raise BusyError(
            "this project is served already, with another certificate",
            got=str(certificate),
            rule=f"one address a project: {before.url}, {before.certificate or 'no TLS'}",
            fix="leave --certificate and --key out, or stop it first: `fettle canary stop`",
        )


def check_tls(host: str) -> None:
    """Refuse to send keys and images in clear. Raises UserError when `host` is no loopback."""
    if not authentication.is_loopback(host):
        raise UserError(
            f"without TLS the API key and every image can be read on the way to {host}",
            got="no certificate",
            rule="an address that others reach is served by https",
            fix="name one: `fettle canary start --certificate FILE --key FILE`; or, behind a proxy "
            "that has one, say --insecure",
        )


def check_routes(place: StateLayout, serving: ServingState) -> None:
    """Let nginx read what it will serve by, before anything is written.

    Raises UserError when it refuses the address, the folder or the certificate.
    """
    described = replace(
        nginx_process.place(
            place.router, host=serving.host, port=serving.port, control=serving.control
        ),
        certificate=_path(serving.certificate),
        certificate_key=_path(serving.certificate_key),
    )
    # any port will do for the releases: nginx does not ask them
    nginx_process.Nginx(described).check(Routes(bento_store.PORT, feedback=serving.feedback))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def serving_release(project: Project) -> PinnedRelease | None:
    """Return the release that will serve what `fettle canary` left, its bytes verified.

    After a promotion the release before stands in for one that was changed. Raises TamperedError
    when none may run, ProjectError when its Bento is gone.
    """
    serving = layout_of(project).serving()
    if serving is None:
        return None
    old, new = serving.champion, serving.challenger
    wanted = [new, old] if serving.promoted else [old]
    refusal: FettleError | None = None
    for release in (one for one in wanted if one is not None):
        try:
            verified_copy.verify(release)
            return release
        except FettleError as err:
            refusal = refusal or err
    if refusal is not None:
        raise refusal
    return new  # a first release on trial: its controller verifies it


def nginx_alive(place: StateLayout) -> bool:
    """Say whether the router runs."""
    return nginx_process.running(place.router) is not None


def ensure(project: Project) -> None:
    """Start the supervisor in the background unless it runs.

    Raises TransientError with the end of its log when it does not come up.
    """
    place = layout_of(project)
    if running(place):
        return
    command = [sys.executable, "-P", "-m", "fettle.rollout.supervisor.watchdog", str(project.root)]
    process_identity.spawn(command, place.folder / watchdog.LOG, cwd=project.root)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if running(place) and place.lease_age_s() < places.LEASE_S:
            return
        time.sleep(0.05)
    raise TransientError(
        "the supervisor did not start",
        got=log_rotation.last_line(place.folder / "controller.log")
        or log_rotation.last_line(place.folder / watchdog.LOG),
        rule=f"within {START_S:g} s",
        fix=f"read {place.folder / 'controller.log'}",
    )


def show_in_prefect(project: Project, rollout: str) -> bool:
    """Let Prefect show a rollout, from a process in the background; False when it does not run."""
    server = local_servers.running(project, "prefect")
    if server is None:
        return False
    place = layout_of(project)
    folder = place.rollout(rollout)
    environ = {**os.environ, "PREFECT_API_URL": server.api}
    command = import_isolation.command("flows.promote", str(folder))
    process_identity.spawn(command, folder / "prefect.log", cwd=project.root, env=environ)
    return True


def foreground(project: Project, serving: ServingState) -> None:
    """Serve until Ctrl-C or SIGTERM, which ends all that was started.

    A watchdog that was killed is started again by its controller: then that one is waited for.
    """
    place = layout_of(project)
    command = [sys.executable, "-P", "-m", "fettle.rollout.supervisor.watchdog", str(project.root)]
    child = subprocess.Popen(command)
    stopped: list[int] = []

    def end(number: int, _frame: object) -> None:  # the watchdog ends, and then all the others
        stopped.append(number)
        child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    told = child.wait() in (0, -signal.SIGINT, -signal.SIGTERM)  # by `fettle canary stop`, say
    while not (stopped or told) and (following := _following(place)) is not None:
        while following.alive() and not stopped:
            time.sleep(FOLLOW_S)
        told = not place.watchdog.exists()  # a killed one leaves it
    stop(project)
    if not (stopped or told):
        raise TransientError(
            f"the supervisor of port {serving.port} ended",
            got=log_rotation.last_line(place.folder / "controller.log"),
            fix=f"read {place.folder / 'controller.log'}",
        )


def _following(place: StateLayout) -> process_identity.ProcessIdentity | None:
    """Wait for the watchdog that a controller starts in place of a dead one; None: none came."""
    deadline = time.monotonic() + AGAIN_S
    while time.monotonic() < deadline:
        if (known := watchdog.running(place)) is not None:
            return known
        time.sleep(FOLLOW_S)
    return None


def stop(project: Project) -> bool:
    """Stop the supervisor, the router and the releases; False when nothing ran."""
    place = layout_of(project)
    found = nginx_alive(place)
    for file in (place.watchdog, place.earlier_watchdog, place.controller):
        if (known := process_identity.read(file)) is not None:
            found = True
            known.end(timeout_s=STOP_S)
    watchdog.forget(place)
    place.controller.unlink(missing_ok=True)
    found = bool(nginx_process.orphans(place.router)) or found
    nginx_process.terminate(place.router)
    served = model_servers.ModelServers(place.arms, os.environ, key=None)
    for server in served.running():
        found = True
        served.stop(server.release)
    with suppress(FileNotFoundError):
        place.lease.unlink()
    return found
