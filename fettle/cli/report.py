"""`fettle report`: the last run as a table, a page, or JSON for programs."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.run import JsonOption, ParamsOption, SetOption

if TYPE_CHECKING:
    from fettle.project import Project
    from fettle.report.report_values import Facts


def report(
    params: ParamsOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a comment or a job summary.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(help="With --markdown: a release to compare with (folder, tag or digest)."),
    ] = None,
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
    from fettle.errors import UserError
    from fettle.report import html_page, report_json
    from fettle.report import report_facts as report_facts

    if against is not None and not markdown:
        raise UserError(
            "--against compares in a comment",
            got=against,
            fix="add --markdown, or `fettle compare`",
        )
    home = projects.find()
    os.environ.update(projects.environment(home))
    place = workspace.locate(home, params, list(set_ or []))
    facts = report_facts.collect(place.tree)
    if json_:
        print(json.dumps(report_json.to_json(facts), indent=1))
    elif markdown:
        print(comment(home, facts, against), end="")
    else:
        from rich.console import Console

        from fettle.report import terminal_report as tables

        console = Console(highlight=False)
        for table in tables.tables(facts):
            console.print(table)
        path = out or place.tree / "report" / "index.html"
        html_page.render(facts, path)
        console.print(f"report   {os.path.relpath(path)}", soft_wrap=True)


def comment(home: Project, facts: Facts, against: str | None) -> str:
    """Return the report as one comment; `against` names the release that it is compared with.

    Before a release there is nothing to compare: then the run's failure is what it tells.
    """
    from fettle.cli.verify import find_release
    from fettle.release import release_comparison
    from fettle.report import comparison_report

    made, folder = None, facts.release.folder
    if against is not None and folder is not None:
        made = release_comparison.compare(find_release(against), home.root / folder)
    return comparison_report.comment(facts, made)
