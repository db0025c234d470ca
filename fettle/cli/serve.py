"""`fettle serve`: verify the last release and serve it with BentoML, on loopback by default."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from fettle.project import Project


def serve(
    tag: Annotated[
        str | None, typer.Argument(help="A Bento tag; the last release if left out.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address; the last one of a canary, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port; the last one of a canary, else 3000."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve without TLS beyond loopback too.")
    ] = False,
    print_only: Annotated[
        bool, typer.Option("--print-only", help="Print the command, do not run it.")
    ] = False,
) -> None:
    """Serve a release, once its signature is verified; stop it with Ctrl-C.

    Makes the API key of this user if there is none yet.

    Example: fettle serve --port 3001
    """
    from fettle import project as projects
    from fettle.adapters import bento_store
    from fettle.rollout.router import guarded_server
    from fettle.rollout.supervisor import supervisor_launch
    from fettle.serving import api_key_file, authentication

    home = projects.find()
    os.environ.update(projects.environment(home))
    if tag is None and not print_only and champion_alone(home, host, port, insecure=insecure):
        return
    host, port = host or bento_store.LOOPBACK, port or bento_store.PORT
    chosen = tag or last_tag(home)
    if host == authentication.LOCAL_NAME:
        host = bento_store.LOOPBACK  # BentoML takes addresses only
    command = bento_store.serve_command(chosen, host=host, port=port)
    authentication.check_bind(host, api_key_file.read(os.environ))
    own = bento_store.serve_home(home.state, host=host, port=port)
    if print_only:
        added = bento_store.serve_environment({}, own)
        print(shlex.join(["env", *(f"{name}={value}" for name, value in added.items()), *command]))
        return
    if not insecure:
        supervisor_launch.check_tls(host)
    bento_store.check_port(host, port)
    served = verified(home, chosen)
    if api_key_file.read(os.environ) is None:
        bento_store.make_key()
    own.mkdir(parents=True, exist_ok=True)
    say(chosen, bento_store.curl_line(host=host, port=port))
    code = guarded_server.serve(
        lambda at: bento_store.serve_folder_command(served, port=at), own, host=host, port=port
    )
    if code:
        raise typer.Exit(code)


def verified(home: Project, tag: str) -> Path:
    """Return the copy of a Bento to serve, verified just now."""
    from fettle.rollout.supervisor.state_layout import PinnedRelease
    from fettle.rollout.supervisor.verified_copy import VerifiedCopies

    folder = home.releases / tag.partition(":")[2]
    release = PinnedRelease(folder.name, tag, str(folder))
    return VerifiedCopies(home.state / "serve").prepare(release)


def champion_alone(home: Project, host: str | None, port: int | None, *, insecure: bool) -> bool:
    """Serve what `fettle canary` made the champion, behind the same address; False without one."""
    from fettle.adapters import bento_store
    from fettle.errors import BusyError
    from fettle.rollout.supervisor import supervisor_launch

    place = supervisor_launch.layout_of(home)
    serving = place.serving()
    if serving is None or (serving.champion is None and serving.challenger is None):
        return False
    if supervisor_launch.running(place):
        raise BusyError(
            "this project is served already",
            got=serving.url,
            rule="one address a project",
            fix="use it, or stop it: `fettle canary stop`",
        )
    named = supervisor_launch.serving_release(home)
    made = supervisor_launch.begin_serving(
        home, host=host, port=port, champion=None, insecure=insecure
    )
    line = bento_store.curl_line(host=made.host, port=made.port, certificate=made.certificate)
    say(named.tag if named else "", line)
    supervisor_launch.foreground(home, made)
    return True


def say(tag: str, line: str) -> None:
    """Say what is served, and how to ask it."""
    print(f"serving {tag}; Ctrl-C ends it. In another terminal:\n  {line}", flush=True)


def last_tag(home: Project) -> str:
    """Return the Bento of the newest release, of the project itself or of a workspace.

    Raises ProjectError before the first one.
    """
    from fettle.errors import ProjectError

    places = [home.last, *home.state.glob("ws/*/.fettle/last.json")]
    newest = max((p for p in places if p.is_file()), key=lambda p: p.stat().st_mtime, default=None)
    if newest is None:
        raise ProjectError("there is no release to serve yet", fix="run `fettle run` first")
    return str(json.loads(newest.read_text())["release"]["bento"])
