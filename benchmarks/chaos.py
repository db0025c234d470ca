"""Inject random faults into a served project and count what its users saw: `make chaos`.

A real router, supervisor and releases with the default plan and lease, under a steady load; the
project is a copy in a scratch folder. `--seed` draws the faults, so that a run can be repeated.
The campaign is cut into pieces of one kind of fault; a piece that was finished
(benchmarks/results/chaos_pieces.jsonl) is not run again, so a run that was ended goes on.
`--only KIND --faults N --seed S` runs one piece alone. Writes benchmarks/results/chaos.json, the
figures of all pieces together. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks import benchmark_row, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.chaos_campaign import campaign_piece
from benchmarks.chaos_campaign.campaign_piece import CampaignPiece, PieceKey
from benchmarks.chaos_campaign.campaign_project import CampaignProject
from benchmarks.chaos_campaign.fault_campaign import CampaignResult, FaultCampaign
from benchmarks.chaos_campaign.injected_fault import FaultKind
from fettle import project as projects

FAULTS, SEED = 300, 20
FAULTS_GOAL, KIND_GOAL = 300, 20
PIECES = table.RESULTS / "chaos_pieces.jsonl"


def main() -> None:
    """Run what is missing of the campaign; exit 1 where something did not hold."""
    chosen = _options().parse_args()
    home = projects.find(chosen.project)
    folder = chosen.release or home.root / json.loads(home.last.read_text())["release"]["folder"]
    origin = row_origin.take(row_origin.command_line("benchmarks.chaos"))
    if chosen.only is None:
        wanted = list(campaign_piece.planned(chosen.faults, chosen.seed))
    else:
        wanted = [PieceKey(only=chosen.only, faults=chosen.faults, seed=chosen.seed)]
    if chosen.fresh:
        PIECES.unlink(missing_ok=True)
    done = {piece.key for piece in campaign_piece.read(PIECES)}
    broken = False
    for key in wanted:
        if key in done:
            print(f"{key.only}, seed {key.seed}: {key.faults} faults were run before", flush=True)
            continue
        piece = CampaignPiece.of(key, _run(key, home.root, folder.resolve()), origin.commit)
        broken |= any(one.broken for one in piece.results) or piece.unjudged > 0
        if chosen.dry:
            table.show(list(rows(campaign_piece.merged([piece]), key.seed)))
            continue
        campaign_piece.append(PIECES, piece)
        pieces = campaign_piece.read(PIECES)
        merged = rows(campaign_piece.merged(pieces), *campaign_piece.seeds(pieces))
        table.write("chaos", list(merged), origin, quiet=key != wanted[-1])
    sys.exit(1 if broken else 0)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [kind.name.lower() for kind in FaultKind]
    parser.add_argument("--only", choices=names, help="one piece, of this kind of fault")
    parser.add_argument("--faults", type=int, default=FAULTS, help="how many")
    parser.add_argument("--seed", type=int, default=SEED, help="draws them")
    parser.add_argument("--project", type=Path, help="with a release; this one if left out")
    parser.add_argument("--release", type=Path, help="its folder; the last one if left out")
    parser.add_argument("--fresh", action="store_true", help="forget the pieces of before")
    parser.add_argument("--dry", action="store_true", help="keep no piece and no results")
    return parser


def _run(key: PieceKey, root: Path, release: Path) -> CampaignResult:
    """Run one piece; its scratch folder stays where something did not hold."""
    scratch = Path(tempfile.mkdtemp(prefix="fettle-chaos-"))
    project = CampaignProject(root, release, scratch)
    seed = random.Random(f"{key.only} {key.seed}").getrandbits(32)  # another draw for each kind
    campaign = FaultCampaign(
        project, seed, say=lambda line: print(line, flush=True), kinds=key.kinds
    )
    result = campaign.run(key.faults)
    if any(one.broken for one in result.faults) or result.judged.unjudged:
        print(f"what it left: {scratch}", file=sys.stderr)
    else:
        shutil.rmtree(scratch)
    return result


def rows(result: CampaignResult, *seeds: int) -> Iterator[BenchmarkRow]:
    """Make the rows of a campaign."""
    broken = [one for one in result.faults if one.broken]
    note = "; ".join(f"{one.number} {one.kind}: {one.target}: {one.broken[0]}" for one in broken)
    yield benchmark_row.measured(
        "fault campaign: faults after which something did not hold",
        len(broken), unit="1", n=len(result.faults), seeds=seeds,
        goal="0", holds=not broken, note=note,
    )  # fmt: skip
    counts = Counter(one.kind for one in result.faults)
    fewest = min(counts[kind] for kind in FaultKind)
    yield benchmark_row.measured(
        "fault campaign: faults of the kind that came least",
        fewest, unit="1", n=len(result.faults), seeds=seeds,
        goal=f">= {KIND_GOAL}, of {FAULTS_GOAL} in all",
        holds=fewest >= KIND_GOAL and len(result.faults) >= FAULTS_GOAL,
    )  # fmt: skip
    for kind in FaultKind:
        waits = sorted(one.answered_s for one in result.faults if one.kind == kind)
        if waits:
            yield benchmark_row.measured(
                f"fault campaign: from the end of a fault ({kind}) to an answer, worst",
                waits[-1], low=waits[0], high=waits[-1], unit="s", n=len(waits), seeds=seeds,
            )  # fmt: skip
    yield from _traffic_rows(result, seeds)


def _traffic_rows(result: CampaignResult, seeds: tuple[int, ...]) -> Iterator[BenchmarkRow]:
    if result.sent:
        told = f"{result.told_to_wait} more got a 503 with Retry-After"
        yield benchmark_row.measured(
            "fault campaign: user requests without an answer, of all that were sent",
            result.failed, unit="1", n=result.sent, seeds=seeds, note=told,
        )  # fmt: skip
    judged = result.judged
    if judged.challenger:
        yield benchmark_row.measured(
            "fault campaign: challenger requests that nobody judged within the lease",
            judged.unjudged, unit="1", n=judged.challenger, seeds=seeds,
            goal="0", holds=judged.unjudged == 0,
        )  # fmt: skip
        yield benchmark_row.measured(
            "fault campaign: time that the challenger had users and no judge",
            judged.blind_s, unit="s", n=judged.challenger, seeds=seeds,
            goal="0", holds=judged.blind_s == 0,
        )  # fmt: skip


if __name__ == "__main__":
    main()
