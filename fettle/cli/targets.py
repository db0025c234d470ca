"""`fettle targets`: where a model can be made to run, and which of it is possible here."""

from __future__ import annotations

import json

from fettle.cli.run import JsonOption


def targets(json_: JsonOption = False) -> None:
    """List the hardware targets with their runtime and whether it can run here.

    Example: fettle targets --json
    """
    import platform

    from fettle import plugins

    rows = []
    for name in plugins.names("targets"):
        record = plugins.resolve("targets", name, where="targets").TARGET
        runtime = plugins.resolve("runtimes", record.runtime, where=name).available()
        here = platform.machine() in record.machine
        rows.append(
            {
                "target": name,
                "hardware": record.hardware,
                "runtime": record.runtime,
                "precision": record.precision,
                "int8_dialect": record.dialect,
                "channel_multiple": record.channel_multiple,
                "runs_here": bool(runtime.ok and here),
                "reason": runtime.reason if not runtime.ok else "" if here else "other hardware",
                "version": runtime.version,
                "about": plugins.summary("targets", name),
            }
        )
    if json_:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("target", "runs here", "about"):
        table.add_column(column)
    for row in rows:
        mark = "yes" if row["runs_here"] else f"no: {row['reason']}"
        table.add_row(str(row["target"]), mark, str(row["about"]))
    Console(highlight=False).print(table)
