"""`fettle targets`: where a model can be made to run, which of it is possible here, install one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.run import JsonOption

if TYPE_CHECKING:
    from fettle.hardware.isolated.toolchain import Toolchain

app = typer.Typer(rich_markup_mode=None)
Row = dict[str, object]
WIDE = 130  # columns, from which a line has room for what a target is about


@app.callback(invoke_without_command=True)
def targets(
    context: typer.Context,
    json_: JsonOption = False,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Compile this ONNX, trained or not, for every target: which operators each lacks.",
            metavar="MODEL.onnx",
        ),
    ] = None,
) -> None:
    """List the hardware targets and whether each can run here; `install` gets one's toolchain.

    Example: fettle targets --check model.onnx
    """
    if context.invoked_subcommand is not None:
        return
    from fettle import plugins

    if check is not None:
        show_support(check, json_)
        return
    rows = [row(name) for name in plugins.names("targets")]
    if json_:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    if console.width < WIDE:
        for column in ("target", "evidence", "available here"):
            table.add_column(column, no_wrap=column != "available here")
        for one in rows:
            table.add_row(str(one["target"]), str(one["evidence"]), short_mark(one))
        console.print(table)
        print("`fettle catalog targets` says more about each")
        return
    for column in ("target", "evidence", "runs here", "about"):
        table.add_column(column, no_wrap=column in ("target", "evidence"))
    for one in rows:
        table.add_row(str(one["target"]), str(one["evidence"]), mark(one), str(one["about"]))
    console.print(table)


def show_support(model: Path, json_: bool) -> None:
    """Say which operators of a model each target lacks, before anything is trained."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from fettle import plugins
    from fettle.hardware import operator_support

    found = operator_support.check(model, plugins.names("targets"))
    if json_:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("target", "operators", "why"):
        table.add_column(column, no_wrap=column == "target")
    for one in found:
        operators = ", ".join(one.lacking)
        said = f"lacks {operators}" if operators else one.status
        table.add_row(one.target, said, one.reason)
    Console(highlight=False).print(table)


@app.command()
def install(
    name: Annotated[str, typer.Argument(help="A target, or the toolchain that its line names.")],
) -> None:
    """Make the environment of a target's toolchain; what it costs is said first.

    Example: fettle targets install iree
    """
    from fettle.hardware.isolated import toolchain_environment

    toolchain = find_toolchain(name)
    made = toolchain_environment.install(toolchain, say=lambda line: print(line, file=sys.stderr))
    print(f"{toolchain.title} {made.packages[toolchain_environment.named(toolchain)[0]]} is ready")


def row(name: str) -> Row:
    """Describe a target, and say whether it can run here."""
    import platform

    from fettle import plugins

    record = plugins.resolve("targets", name, where="targets").TARGET
    module = plugins.resolve("runtimes", record.runtime, where=name)
    ask = getattr(module, "available_for", None)
    runtime = ask(record.device) if ask else module.available()
    here = record.evidence != "measured" or platform.machine() in record.machine
    return {
        "target": name,
        "hardware": record.hardware,
        "family": record.family,
        "evidence": record.evidence,
        "next_command": record.next_command,
        "runtime": record.runtime,
        "precision": record.precision,
        "int8_dialect": record.dialect,
        "channel_multiple": record.channel_multiple,
        "runs_here": bool(runtime.ok and here),
        "reason": "other hardware" if not here else "" if runtime.ok else runtime.reason,
        "install": None if runtime.ok else runtime.install,
        "version": runtime.version,
        "about": plugins.summary("targets", name),
    }


def short_mark(one: Row) -> str:
    """Say the same as `mark` in a narrow terminal: yes, or the command that would mend it."""
    if one["runs_here"]:
        return "yes"
    return str(one["install"] or f"no: {one['reason']}")


def mark(one: Row) -> str:
    """Say in a word whether a target runs here, and if not, what would mend it."""
    if one["runs_here"]:
        return "yes" if one["evidence"] == "measured" else f"yes, {one['evidence']}"
    if one["install"] and one["reason"] != "other hardware":
        return f"unavailable: run `{one['install']}`"
    return f"no: {one['reason']}"


def find_toolchain(name: str) -> Toolchain:
    """Return the toolchain of a target or of a runtime.

    Raises ParamsError for an unknown name, TargetError when it shares fettle's own environment.
    """
    from fettle import plugins
    from fettle.errors import ParamsError, TargetError

    runtimes, all_targets = plugins.names("runtimes"), plugins.names("targets")
    if name not in [*runtimes, *all_targets]:
        near = plugins.suggest(name, [*runtimes, *all_targets])
        raise ParamsError(
            "there is no such target or toolchain",
            got=f"'{name}'{near}",
            rule=f"the toolchains are {', '.join(runtimes)}",
            fix="`fettle targets` lists the targets",
        )
    runtime = name
    if name in all_targets:
        runtime = plugins.resolve("targets", name, where="targets").TARGET.runtime
    module = plugins.resolve("runtimes", runtime, where=name)
    found: Toolchain | None = getattr(module, "TOOLCHAIN", None)
    if found is None:
        state = module.available()
        raise TargetError(
            f"{name} has no environment of its own to install",
            got=f"version {state.version} in fettle's own environment"
            if state.ok
            else str(state.reason),
            rule="its package is installed beside fettle",
            fix="nothing is to be done" if state.ok else f"run {state.install}",
        )
    return found
