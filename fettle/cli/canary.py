"""`fettle canary`: promote a release by evidence, or roll it back; every verb is one function."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fettle.cli import canary_tools as tools

if TYPE_CHECKING:
    from fettle.project import Project
    from fettle.supervisor.place import Release

app = typer.Typer(
    help="Put a challenger beside the champion, and let the evidence promote it or roll it back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ReleaseOption = Annotated[
    str | None,
    typer.Option("--release", help="Digest, tag or folder; the alias `challenger` if left out."),
]
for command in (tools.plan, tools.lint, tools.replay, tools.rehearse):
    app.command()(command)
ANSWER_S = 120.0  # `start` waits for the challenger's first inference
ORDER_S = 30.0


@app.command()
def start(
    release: ReleaseOption = None,
    host: Annotated[str, typer.Option(help="Public address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Public port.")] = 3000,
    certificate: Annotated[Path | None, typer.Option(help="PEM file: serve TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    json_: JsonOption = False,
) -> None:
    """Start a rollout of a release; the supervisor goes on in the background.

    Example: fettle canary start --release 1a2b3c
    """
    from fettle.supervisor import launch

    home, plan = _project()
    challenger, champion = _pinned(home, release)
    launch.begin(
        home,
        host=host,
        port=port,
        champion=champion,
        certificate=str(certificate.resolve()) if certificate else None,
        certificate_key=str(key.resolve()) if key else None,
    )
    launch.ensure(home)
    from dataclasses import asdict

    answer = _order(
        home,
        {
            "verb": "start",
            "challenger": asdict(challenger),
            "champion": asdict(champion) if champion else None,
            "plan": plan,
        },
        timeout_s=ANSWER_S,
    )
    shown = launch.show_in_prefect(home, str(answer["rollout"]))
    if json_:
        print(json.dumps(answer))
        return
    against = f"beside {champion.release}" if champion else "as the first release"
    print(f"rollout {answer['rollout']}: {challenger.release} {against}, http://{host}:{port}")
    print("  fettle canary status --watch")
    print("  in Prefect's UI: the flow `promote`" if shown else "  (`fettle ui` was not running)")


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it is over.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show where the rollout stands: gates, both arms' counts, evidence, thresholds.

    Example: fettle canary status --watch
    """
    from fettle.cli import canary_view

    home, _ = _project(plan=False)
    last = ""
    while True:
        doc = _status(home)
        if json_:
            print(json.dumps(doc), flush=True)
        elif (text := canary_view.text(doc)) != last:
            print(text, flush=True)
            last = text
        if not watch or doc["state"] in ("promoted", "rolled_back", "aborted", "idle"):
            return
        time.sleep(1.0)


@app.command()
def pause(json_: JsonOption = False) -> None:
    """Hold the rollout at its weight; a failing gate still rolls it back.

    Example: fettle canary pause
    """
    _verb("pause", json_)


@app.command()
def resume(json_: JsonOption = False) -> None:
    """Go on with a paused rollout, its evidence gathered anew.

    Example: fettle canary resume
    """
    _verb("resume", json_)


@app.command()
def promote(json_: JsonOption = False) -> None:
    """Send everybody to the challenger now, without the evidence; the bake still watches it.

    Example: fettle canary promote
    """
    _verb("promote", json_)


@app.command()
def abort(json_: JsonOption = False) -> None:
    """End the rollout: everybody back to the champion at once.

    Example: fettle canary abort
    """
    _verb("abort", json_)


@app.command()
def undo(json_: JsonOption = False) -> None:
    """Take a promotion back: the release before serves again.

    Example: fettle canary undo
    """
    _verb("undo", json_)


@app.command()
def retry(json_: JsonOption = False) -> None:
    """Start a new rollout of the challenger of the last one, which is over.

    Example: fettle canary retry
    """
    from dataclasses import asdict

    from fettle.errors import ProjectError
    from fettle.supervisor import launch

    home, plan = _project()
    serving = launch.place_of(home).serving()
    if serving is None or serving.challenger is None:
        raise ProjectError("there is no rollout to retry", fix="begin one: `fettle canary start`")
    challenger = launch.pin(home, serving.challenger.release)
    launch.ensure(home)
    order = {"verb": "start", "challenger": asdict(challenger), "champion": None, "plan": plan}
    answer = _order(home, order, timeout_s=ANSWER_S)
    print(json.dumps(answer) if json_ else f"rollout {answer['rollout']}: {challenger.release}")


@app.command()
def stop() -> None:
    """Stop the supervisor, the router and the releases: nothing serves any more.

    Example: fettle canary stop
    """
    from fettle.supervisor import launch

    home, _ = _project(plan=False)
    print("stopped" if launch.stop(home) else "nothing was running")


def _project(*, plan: bool = True) -> tuple[Project, dict[str, Any]]:  # Any: JSON
    from fettle import params as params_file
    from fettle import project as projects

    home = projects.find()
    os.environ.update(projects.environment(home))
    if not plan:
        return home, {}
    section = params_file.load(home.root / "params.yaml").promote
    return home, section.model_dump(mode="json")


def _pinned(home: Project, named: str | None) -> tuple[Release, Release | None]:
    """Resolve the two releases, once: from here on digests are spoken of, not names."""
    from fettle.errors import TransientError, UserError
    from fettle.supervisor import launch

    last = launch.last_release(home)
    try:
        from fettle.adapters import aliases

        registry = aliases.Registry(home.tracking_uri, last.tag.partition(":")[0])
        challenger_name = named or registry.resolve("challenger")
        champion_name = registry.resolve("champion")
    except TransientError as err:
        print(f"fettle: {err} The last release is taken.", file=sys.stderr)
        challenger_name, champion_name = named, None
    challenger = launch.pin(home, challenger_name) if challenger_name else last
    if named is None and challenger_name is None:
        gate = json.loads((Path(challenger.folder) / "gate.json").read_text())
        if not gate.get("passed", False):
            raise UserError(
                "the last release is no challenger",
                got="its offline gate did not pass",
                rule="only a release that passed may meet users",
                fix="see `fettle report`, or name another with --release",
            )
    champion = launch.pin(home, champion_name) if champion_name else None
    return challenger, champion


def _verb(verb: str, json_: bool) -> None:
    from fettle.supervisor import launch

    home, _ = _project(plan=False)
    launch.ensure(home)
    answer = _order(home, {"verb": verb}, timeout_s=ORDER_S)
    print(json.dumps(answer) if json_ else f"{answer['state']}: {answer['reason']}")


def _order(home: Project, order: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Hand an order to the supervisor and wait for what became of it."""
    from fettle.errors import TransientError, from_record
    from fettle.supervisor import launch
    from fettle.supervisor import place as places

    place = launch.place_of(home)
    name = places.post(place, order)
    answer = places.answer(place, name, timeout_s=timeout_s)
    if answer is None:
        raise TransientError(
            "the supervisor did not answer",
            got=launch.last_line(place.folder / "controller.log"),
            rule=f"within {timeout_s:g} s",
            fix=f"read {place.folder / 'controller.log'}; the order waits for it",
        )
    if "error" in answer:
        raise from_record(str(answer["kind"]), str(answer["error"]))
    return answer


def _status(home: Project) -> dict[str, Any]:
    from fettle.supervisor import launch

    place = launch.place_of(home)
    serving = place.serving()
    path = place.rollout(serving.rollout) / "status.json" if serving and serving.rollout else None
    if serving is None or path is None or not path.is_file():
        champion = serving.champion.release if serving and serving.champion else None
        return {"state": "idle", "champion": champion, "gates": [], "weight_percent": 0.0}
    doc: dict[str, Any] = json.loads(path.read_text())
    return {**doc, "supervisor": "running" if launch.running(place) else "stopped"}
