"""Campaign piece: some faults drawn with one seed, kept in a file, so that a campaign is resumable.

A line of benchmarks/results/chaos_pieces.jsonl is a piece that was finished; the figures of the
campaign are those of all pieces together. A piece that is there is not run again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.chaos_campaign.fault_campaign import CampaignResult, FaultResult
from benchmarks.chaos_campaign.injected_fault import FaultKind
from benchmarks.chaos_campaign.judged_traffic import JudgedTraffic

FAULTS = 10  # of a piece: about ten minutes


class PieceKey(BaseModel):
    """What a piece was asked to be: faults of one kind (its name), or of all kinds with None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: str | None
    faults: int
    seed: int

    @property
    def kinds(self) -> tuple[FaultKind, ...]:
        """The kinds that its faults are drawn from."""
        return tuple(FaultKind) if self.only is None else (FaultKind[self.only.upper()],)


class CampaignPiece(BaseModel):
    """One finished piece: its faults, what its users saw, and the commit that it ran on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: PieceKey
    commit: str | None
    results: tuple[FaultResult, ...]
    sent: int
    failed: int
    told_to_wait: int
    challenger: int
    unjudged: int
    blind_s: float

    @classmethod
    def of(cls, key: PieceKey, result: CampaignResult, commit: str | None) -> CampaignPiece:
        """Take what a campaign counted."""
        return cls(
            key=key,
            commit=commit,
            results=tuple(result.faults),
            sent=result.sent,
            failed=result.failed,
            told_to_wait=result.told_to_wait,
            **asdict(result.judged),
        )


def read(path: Path) -> list[CampaignPiece]:
    """Read the pieces that were finished, the last of each key; none without the file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    found = {piece.key: piece for piece in map(CampaignPiece.model_validate_json, lines)}
    return list(found.values())


def append(path: Path, piece: CampaignPiece) -> None:
    """Keep a piece."""
    with path.open("a") as out:
        out.write(piece.model_dump_json() + "\n")


def planned(faults: int, seed: int) -> Iterator[PieceKey]:
    """Cut a campaign of so many faults into pieces, each kind as often as another."""
    each = math.ceil(faults / len(FaultKind))
    for kind in FaultKind:
        for index, begin in enumerate(range(0, each, FAULTS)):
            count = min(FAULTS, each - begin)
            yield PieceKey(only=kind.name.lower(), faults=count, seed=seed + index)


def merged(pieces: Iterable[CampaignPiece]) -> CampaignResult:
    """Add pieces up."""
    total = CampaignResult()
    for piece in pieces:
        total.faults += piece.results
        total.sent += piece.sent
        total.failed += piece.failed
        total.told_to_wait += piece.told_to_wait
        was = total.judged
        total.judged = JudgedTraffic(
            was.challenger + piece.challenger,
            was.unjudged + piece.unjudged,
            was.blind_s + piece.blind_s,
        )
    return total


def seeds(pieces: Sequence[CampaignPiece]) -> tuple[int, ...]:
    """List the seeds that were drawn with."""
    return tuple(sorted({piece.key.seed for piece in pieces}))
