"""`fettle canary`: promote a release by evidence, or roll it back; every verb is one function."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fettle.cli import canary_orders as orders
from fettle.cli import canary_tools as tools

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
WhyOption = Annotated[str | None, typer.Option("--why", help="The reason; it is journalled.")]
for command in (tools.plan, tools.lint, tools.replay, tools.rehearse):
    app.command()(command)
ANSWER_S = 120.0  # `start` waits for the challenger's first inference
ORDER_S = 30.0
STOP_S = 5.0


@app.command()
def start(
    release: ReleaseOption = None,
    host: Annotated[
        str | None, typer.Option(help="Public address; the last one, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Public port; the last one, else 3000."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file: serve TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve without TLS beyond loopback too.")
    ] = False,
    *,
    why: WhyOption = None,
    json_: JsonOption = False,
) -> None:
    """Start a rollout of a release; the supervisor goes on in the background.

    Example: fettle canary start --release 1a2b3c
    """
    from fettle.rollout.supervisor import supervisor_launch

    home, plan = orders.project()
    challenger, champion = orders.pinned(home, release)
    for doubt in tools.forecast(None, None)[0].refusals if champion else ():
        print(f"fettle: {doubt}. It starts, and pauses there.", file=sys.stderr)
    made = supervisor_launch.begin_serving(
        home,
        host=host,
        port=port,
        champion=champion,
        certificate=str(certificate.resolve()) if certificate else None,
        certificate_key=str(key.resolve()) if key else None,
        insecure=insecure,
    )
    supervisor_launch.ensure(home)
    from dataclasses import asdict

    answer = orders.order(
        home,
        {
            "verb": "start",
            "challenger": asdict(challenger),
            "champion": asdict(champion) if champion else None,
            "plan": plan,
        },
        why=why,
        timeout_s=ANSWER_S,
    )
    shown = supervisor_launch.show_in_prefect(home, str(answer["rollout"]))
    if json_:
        print(json.dumps(answer))
        return
    against = f"beside {champion.release}" if champion else "as the first release"
    print(f"rollout {answer['rollout']}: {challenger.release} {against}, {made.url}")
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
    from fettle.rollout.promotion.rollout_state import is_over

    home, _ = orders.project(plan=False)
    last = ""
    while True:
        doc = orders.status(home)
        if json_:
            print(json.dumps(doc), flush=True)
        elif (text := canary_view.text(doc)) != last:
            print(text, flush=True)
            last = text
        if not watch or doc["state"] == "idle" or is_over(doc["state"]):
            return
        time.sleep(1.0)


@app.command()
def pause(why: WhyOption = None, json_: JsonOption = False) -> None:
    """Hold the rollout at its weight; a failing gate still rolls it back.

    Example: fettle canary pause
    """
    _verb("pause", why, json_)


@app.command()
def resume(why: WhyOption = None, json_: JsonOption = False) -> None:
    """Go on with a paused rollout, its evidence gathered anew.

    Example: fettle canary resume
    """
    _verb("resume", why, json_)


@app.command()
def promote(why: WhyOption = None, json_: JsonOption = False) -> None:
    """Send everybody to the challenger now, without the evidence; the bake still watches it.

    Example: fettle canary promote
    """
    _verb("promote", why, json_)


@app.command()
def abort(why: WhyOption = None, json_: JsonOption = False) -> None:
    """End the rollout: everybody back to the champion at once.

    Example: fettle canary abort
    """
    _verb("abort", why, json_)


@app.command()
def undo(why: WhyOption = None, json_: JsonOption = False) -> None:
    """Take a promotion back: the release before serves again.

    Example: fettle canary undo
    """
    _verb("undo", why, json_)


@app.command()
def forget(why: WhyOption = None, json_: JsonOption = False) -> None:
    """Watch a finished rollout no more, or one that cannot be read; its files stay.

    Example: fettle canary forget
    """
    _verb("forget", why, json_)


@app.command()
def retry(why: WhyOption = None, json_: JsonOption = False) -> None:
    """Start a new rollout of the challenger of the last one, which is over.

    Example: fettle canary retry
    """
    from dataclasses import asdict

    from fettle.errors import ProjectError
    from fettle.rollout.supervisor import supervisor_launch

    home, plan = orders.project()
    serving = supervisor_launch.layout_of(home).serving()
    if serving is None or serving.challenger is None:
        raise ProjectError("there is no rollout to retry", fix="begin one: `fettle canary start`")
    challenger = supervisor_launch.pin(home, serving.challenger.release)
    supervisor_launch.ensure(home)
    order = {"verb": "start", "challenger": asdict(challenger), "champion": None, "plan": plan}
    answer = orders.order(home, order, why=why, timeout_s=ANSWER_S)
    print(json.dumps(answer) if json_ else f"rollout {answer['rollout']}: {challenger.release}")


@app.command()
def stop(why: WhyOption = None) -> None:
    """Stop the supervisor, the router and the releases: nothing serves any more.

    Example: fettle canary stop --why "a new kernel"
    """
    from fettle.errors import FettleError
    from fettle.rollout.supervisor import supervisor_launch

    home, _ = orders.project(plan=False)
    place = supervisor_launch.layout_of(home)
    if supervisor_launch.running(place) and place.active():
        with suppress(FettleError):  # it is only journalled: a supervisor that hangs is ended too
            orders.order(home, {"verb": "stop"}, why=why, timeout_s=STOP_S)
    print("stopped" if supervisor_launch.stop(home) else "nothing was running")
    if waiting := place.active():
        print(
            f"the rollout {waiting} waits with its evidence: `fettle serve` and any order go on "
            "with it, `fettle canary abort` ends it"
        )


def _verb(verb: str, why: str | None, json_: bool) -> None:
    from fettle.rollout.supervisor import supervisor_launch

    home, _ = orders.project(plan=False)
    supervisor_launch.ensure(home)
    answer = orders.order(home, {"verb": verb}, why=why, timeout_s=ORDER_S)
    print(json.dumps(answer) if json_ else f"{answer['state']}: {answer['reason']}")
