"""A fault campaign is run in pieces: each kind often enough, none twice, all added up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import chaos
from benchmarks.chaos_campaign import campaign_piece, injected_fault
from benchmarks.chaos_campaign.campaign_piece import CampaignPiece, PieceKey
from benchmarks.chaos_campaign.fault_campaign import INJECTORS, CampaignResult, FaultResult
from benchmarks.chaos_campaign.injected_fault import FaultKind
from benchmarks.chaos_campaign.judged_traffic import JudgedTraffic

KEY = PieceKey(only="kill", faults=2, seed=3)


def result(kind: FaultKind, faults: int = 2, unjudged: int = 0) -> CampaignResult:
    found = [FaultResult(n, "step", kind, "router", 0.5 + n) for n in range(1, faults + 1)]
    return CampaignResult(found, 100, 3, 4, JudgedTraffic(50, unjudged, unjudged / 10))


def test_a_campaign_of_300_faults_has_20_of_each_kind_at_least() -> None:
    planned = list(campaign_piece.planned(300, 20))
    counts = Counter[str | None]()
    for key in planned:
        counts[key.only] += key.faults
    assert set(counts) == {kind.name.lower() for kind in FaultKind}
    assert min(counts.values()) >= 20
    assert counts.total() >= 300
    assert len(set(planned)) == len(planned)
    assert set(FaultKind) == set(INJECTORS)


def test_a_piece_draws_its_own_kind_alone() -> None:
    assert KEY.kinds == (FaultKind.KILL,)
    assert set(PieceKey(only=None, faults=1, seed=1).kinds) == set(FaultKind)
    rng = injected_fault.random.Random(1)
    assert list(injected_fault.deck(5, rng, KEY.kinds)) == [FaultKind.KILL] * 5


def test_a_finished_piece_is_found_again_and_a_second_run_of_it_counts_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pieces.jsonl"
    assert campaign_piece.read(path) == []
    for unjudged in (7, 0):
        piece = CampaignPiece.of(KEY, result(FaultKind.KILL, unjudged=unjudged), "abc")
        campaign_piece.append(path, piece)
    assert campaign_piece.read(path) == [piece]


def test_the_figures_are_those_of_all_pieces(tmp_path: Path) -> None:
    pieces = [
        CampaignPiece.of(KEY, result(FaultKind.KILL), "abc"),
        CampaignPiece.of(
            KEY.model_copy(update={"only": "disk", "seed": 9}),
            result(FaultKind.DISK, faults=3, unjudged=2),
            "abd",
        ),
    ]
    total = campaign_piece.merged(pieces)
    assert (len(total.faults), total.sent, total.failed, total.told_to_wait) == (5, 200, 6, 8)
    assert total.judged == JudgedTraffic(100, 2, 0.2)
    found = {
        row.what.removeprefix("fault campaign: "): row
        for row in chaos.rows(total, *campaign_piece.seeds(pieces))
    }
    least = found["faults of the kind that came least"]
    assert (least.value, least.n, least.verdict) == (0, 5, "missed")
    assert found["challenger requests that nobody judged within the lease"].verdict == "missed"
    assert found["from the end of a fault (full disk) to an answer, worst"].high == 3.5
    assert {row.seeds for row in found.values()} == {(3, 9)}


@pytest.mark.parametrize("words", [["--only", "no such kind"], ["--faults", "x"]])
def test_a_kind_that_is_none_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        chaos._options().parse_args(words)
