"""`fettle compare A B`: two releases on the same test rows, without models or data."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fettle.cli.run import JsonOption

NAMED = "A release's folder, Bento tag, digest (its start), or name."


def compare(
    before: Annotated[str, typer.Argument(help=NAMED)],
    after: Annotated[str, typer.Argument(help=NAMED)],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a comment.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Compare two releases: paired intervals on the same test rows, size, latency, flipped answers.

    Example: fettle compare fruit:8b6e1e182bf1 fruit:a0b3e4417cd5
    """
    from fettle.cli.verify import find_release
    from fettle.release import release_comparison
    from fettle.report import comparison_report
    from fettle.serving import release_bundle

    folders = [find_release(named).resolve() for named in (before, after)]
    for folder in folders:
        release_bundle.verify(folder)
    made = release_comparison.compare(*folders)
    if json_:
        print(json.dumps(release_comparison.to_json(made), indent=1))
    elif markdown:
        print(comparison_report.markdown(made), end="")
    else:
        print(comparison_report.text(made))
