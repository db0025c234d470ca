"""`fettle report`: the last run as a table, a page, or JSON for programs."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from fettle.cli.run import JsonOption, ParamsOption, SetOption


def report(
    params: ParamsOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a CI job summary.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of --json; needs no project.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the HTML page here.")] = None,
) -> None:
    """Show the last run of this project (or of the workspace that --params and --set name).

    Example: fettle report --json
    """
    if schema:
        print(resources.files("fettle.report").joinpath("schema.json").read_text("utf-8"), end="")
        return
    from fettle import project as projects
    from fettle import workspace
    from fettle.report import html_page, report_json
    from fettle.report import report_facts as report_facts
    from fettle.report.markdown_report import markdown as as_markdown

    home = projects.find()
    os.environ.update(projects.environment(home))
    place = workspace.locate(home, params, list(set_ or []))
    facts = report_facts.collect(place.tree)
    if json_:
        print(json.dumps(report_json.to_json(facts), indent=1))
    elif markdown:
        print(as_markdown(facts))
    else:
        from rich.console import Console

        from fettle.report import terminal_report as tables

        console = Console(highlight=False)
        for table in tables.tables(facts):
            console.print(table)
        path = out or place.tree / "report" / "index.html"
        html_page.render(facts, path)
        console.print(f"report   {os.path.relpath(path)}", soft_wrap=True)
