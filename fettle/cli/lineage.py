"""`fettle lineage X`: what a thing was made of, and what was made of it, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.run import JsonOption

if TYPE_CHECKING:
    from fettle.release.lineage_graph import LineageNode, RecordedRollout
    from fettle.rollout.supervisor.state_layout import StateLayout

TAIL_BYTES = 1 << 18  # a decision's line has some kilobytes


def lineage(
    thing: Annotated[
        str,
        typer.Argument(
            help="A Bento tag, model version (NAME/VERSION), run, commit, digest, file or rollout."
        ),
    ],
    json_: JsonOption = False,
) -> None:
    """Walk from a thing to what it was made of, and to what was made of it, to the traffic.

    Example: fettle lineage fruit:8b6e1e182bf1
    """
    from fettle import manifest
    from fettle import project as projects
    from fettle.release import lineage_graph
    from fettle.rollout.supervisor.state_layout import StateLayout

    home = projects.find()
    place = StateLayout(home.state / "canary")
    graph = lineage_graph.build(home.releases, recorded_rollouts(place), served(place))
    path = Path(thing)
    if path.is_file():
        thing = manifest.sha256_file(path)
    elif (path / "release.json").is_file():
        thing = manifest.tree_digest(path)
    found = graph.find(thing)
    before, after = graph.walk(found, up=True), graph.walk(found, up=False)
    if json_:
        shown = {node.key for node in (*found, *before, *after)}
        edges = [
            {"from": source, "to": target, "how": how}
            for (source, target), how in graph.edges.items()
            if {source, target} <= shown
        ]
        doc = {
            "schema": "fettle.lineage-walk/1",
            "asked": [node.to_json() for node in found],
            "made_of": [node.to_json() for node in before],
            "led_to": [node.to_json() for node in after],
            "edges": sorted(edges, key=lambda edge: (edge["from"], edge["to"])),
        }
        print(json.dumps(doc, indent=1))
        return
    for title, nodes in (("", found), ("made of", before), ("led to", after)):
        if title:
            print(title if nodes else f"{title}: nothing that is recorded here")
        for node in nodes:
            print(_line(node))


def _line(node: LineageNode) -> str:
    from fettle.release.lineage_graph import short

    name = short(node.key.partition(":")[2])
    return f"  {node.kind:<9} {name:<28} {node.label}{' (imported)' * node.imported}".rstrip()


def recorded_rollouts(place: StateLayout) -> list[RecordedRollout]:
    """Read where each rollout stands from the first and the last line of its journal."""
    from fettle.release.lineage_graph import RecordedRollout

    found = []
    for name in place.rollouts():
        journal = place.rollout(name) / "journal.jsonl"
        try:
            with journal.open("rb") as lines:
                begin = json.loads(lines.readline())["begin"]
                lines.seek(max(0, journal.stat().st_size - TAIL_BYTES))
                tail = lines.read().splitlines()
            challenger, champion = str(begin["challenger"]), begin["champion"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no rollout that began
        state, reason = "begun", ""
        for line in reversed(tail):
            try:
                decision = json.loads(line)["decision"]
                state, reason = str(decision["state"]["phase"]), str(decision["reason"])
                break
            except (ValueError, KeyError, TypeError):
                continue  # a line that a crash cut, or the file's middle
        found.append(RecordedRollout(name, challenger, champion, state, reason))
    return found


def served(place: StateLayout) -> dict[str, str]:
    """Return {release: address} of what serves the traffic, as the supervisor wrote it down."""
    serving = place.serving()
    if serving is None:
        return {}
    alone = serving.challenger if serving.promoted else serving.champion
    return {alone.release: serving.url} if alone else {}
