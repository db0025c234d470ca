"""Inject random faults into a served project and count what its users saw: `make chaos`.

A real router, supervisor and releases with the default plan and lease, under a steady load; the
project is a copy in a scratch folder. `--seed` draws the faults, so that a run can be repeated.
Writes benchmarks/results/chaos.json. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import benchmark_row, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.chaos_campaign.campaign_project import CampaignProject
from benchmarks.chaos_campaign.fault_campaign import CampaignResult, FaultCampaign
from benchmarks.chaos_campaign.injected_fault import FaultKind
from fettle import project as projects

FAULTS, SEED = 300, 20


def main() -> None:
    """Run the campaign; exit 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=FAULTS, help="how many")
    parser.add_argument("--seed", type=int, default=SEED, help="draws them")
    parser.add_argument("--project", type=Path, help="with a release; this one if left out")
    parser.add_argument("--release", type=Path, help="its folder; the last one if left out")
    parser.add_argument("--dry", action="store_true", help="write no results")
    chosen = parser.parse_args()
    home = projects.find(chosen.project)
    folder = chosen.release or home.root / json.loads(home.last.read_text())["release"]["folder"]
    origin = row_origin.take(row_origin.command_line("benchmarks.chaos"))
    scratch = Path(tempfile.mkdtemp(prefix="fettle-chaos-"))
    project = CampaignProject(home.root, folder.resolve(), scratch)
    campaign = FaultCampaign(project, chosen.seed, say=lambda line: print(line, flush=True))
    result = campaign.run(chosen.faults)
    made = list(rows(result, chosen.seed))
    if chosen.dry:
        table.show(made)
    else:
        table.write("chaos", made, origin)
    if any(one.broken for one in result.faults) or result.judged.unjudged:
        print(f"what it left: {scratch}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(scratch)


def rows(result: CampaignResult, seed: int) -> Iterator[BenchmarkRow]:
    """Make the rows of a campaign."""
    broken = [one for one in result.faults if one.broken]
    note = "; ".join(f"{one.number} {one.kind}: {one.target}: {one.broken[0]}" for one in broken)
    yield benchmark_row.measured(
        "fault campaign: faults after which something did not hold",
        len(broken), unit="1", n=len(result.faults), seeds=(seed,),
        goal="0", holds=not broken, note=note,
    )  # fmt: skip
    for kind in FaultKind:
        waits = sorted(one.answered_s for one in result.faults if one.kind == kind)
        if waits:
            yield benchmark_row.measured(
                f"fault campaign: from the end of a fault ({kind}) to an answer, worst",
                waits[-1], low=waits[0], high=waits[-1], unit="s", n=len(waits), seeds=(seed,),
            )  # fmt: skip
    if result.sent:
        told = f"{result.told_to_wait} more got a 503 with Retry-After"
        yield benchmark_row.measured(
            "fault campaign: user requests without an answer, of all that were sent",
            result.failed, unit="1", n=result.sent, seeds=(seed,), note=told,
        )  # fmt: skip
    judged = result.judged
    if judged.challenger:
        yield benchmark_row.measured(
            "fault campaign: challenger requests that nobody judged within the lease",
            judged.unjudged, unit="1", n=judged.challenger, seeds=(seed,),
            goal="0", holds=judged.unjudged == 0,
        )  # fmt: skip
        yield benchmark_row.measured(
            "fault campaign: time that the challenger had users and no judge",
            judged.blind_s, unit="s", n=judged.challenger, seeds=(seed,),
            goal="0", holds=judged.blind_s == 0,
        )  # fmt: skip


if __name__ == "__main__":
    main()
