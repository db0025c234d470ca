"""Evidence collector: reads the router's log, shadow pairs and late labels on, by position.

Each lies in a file that only grows; the journal holds every record that was judged, so after a
kill it says how far each was read. A line that is none is left out and counted: more than BAD_MOST,
and more than BAD_SHARE of what was read, and the analysis has failed (`error`).
"""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fettle.json_values import JsonObject
from fettle.rollout.promotion.request_records import (
    CLIENT_GONE,
    Arm,
    Attempt,
    InputObservation,
    Record,
    ShadowPair,
    judged_ms,
)
from fettle.rollout.router import access_log
from fettle.rollout.router.access_log import LoggedRequest
from fettle.rollout.supervisor import jsonl
from fettle.rollout.supervisor.late_labels import Answered, AnsweredRequests, label

# A torn write costs a line or two; more than ten, and one in a hundred, is no accident.
BAD_MOST = 10
BAD_SHARE = 0.01


@dataclass
class Cursors:
    """How far each source was read, in bytes."""

    log: int
    pairs: int
    labels: int


class EvidenceCollector:
    """Reads the sources of one rollout; `edges` part the inputs' brightness into bins."""

    def __init__(
        self, folder: Path, log: Path, since: int, *, edges: list[float], memory: AnsweredRequests
    ) -> None:
        self._folder, self._log, self._edges, self._memory = folder, log, edges, memory
        self._at = cursors(folder, log, since)
        self._read = 0
        self._bad: list[str] = []
        self.behind = False  # more has come in than one look takes
        self.challenger_requests = 0  # drawn for it since this process watches

    @property
    def skipped(self) -> int:
        """How many lines were left out since this process watches, or a person resumed."""
        return len(self._bad)

    @property
    def error(self) -> str | None:
        """Say that too many lines cannot be read for what is left to be evidence."""
        if len(self._bad) <= max(BAD_MOST, BAD_SHARE * self._read):
            return None
        return (
            f"{len(self._bad)} of {self._read} lines cannot be read, more than {BAD_MOST} and "
            f"{BAD_SHARE:.0%}; the last: {self._bad[-1][:120]}"
        )

    def clear_error(self) -> None:
        """Count anew: a person has seen the bad lines."""
        self._read, self._bad = 0, []

    def collect(
        self, arms: Mapping[str, access_log.Arm], *, log: bool, one_in: int | None = 1
    ) -> tuple[Record, ...]:
        """Return what came in since the last look; the router's log only with `log`.

        Of its requests one in so many is taken, by its number, so of both arms alike; none with
        None.
        """
        return tuple(self._records(arms, log=log, one_in=one_in))

    def _records(
        self, arms: Mapping[str, access_log.Arm], *, log: bool, one_in: int | None
    ) -> Iterable[Record]:
        at, before = self._at, len(self._bad)
        self.behind = False
        if log:
            since = at.log
            found, at.log = access_log.read(self._log, since, arms, bad=self._bad)
            self.behind = at.log - since > access_log.READ_MAX_BYTES // 2
            self._read += len(found)
            for line in found:
                self.challenger_requests += line.drawn == "challenger"
                if one_in is None or zlib.crc32(line.request_id.encode()) % one_in:
                    continue
                yield from attempts_of(line)
                yield from self._seen(line)
                self._remember(line)
        bad = self._bad
        pairs, at.pairs = jsonl.read(self._folder / "shadow.jsonl", at.pairs, take=pair, bad=bad)
        yield from pairs
        late, at.labels = jsonl.read(self._folder / "labels.jsonl", at.labels, take=label, bad=bad)
        yield from late
        self._read += len(pairs) + len(late) + len(bad) - before

    def _seen(self, line: LoggedRequest) -> Iterable[InputObservation]:
        arm = line.tries[-1].arm if line.tries else None
        if arm is None or not self._edges:
            return
        for value in line.inputs:
            bin_index = bisect_right(self._edges, value)
            yield InputObservation(
                request_id=line.request_id, time_s=line.time_s, arm=Arm(arm), bin_index=bin_index
            )

    def _remember(self, line: LoggedRequest) -> None:
        """Keep who answered, for the label; a replay's answer is not the drawn arm's."""
        if len(line.tries) == 1 and line.tries[0].arm is not None:
            self._memory.remember(line.request_id, Answered(line.tries[0].arm, line.predicted))


def pair(doc: JsonObject) -> ShadowPair:
    """Read one line of shadow.jsonl. Raises ValueError when it is none."""
    match {"label": None, **doc}:
        case {
            "request_id": str(request_id),
            "time_s": float(time_s) | int(time_s),
            "champion": str(champion) | (None as champion),
            "challenger": str(challenger) | (None as challenger),
            "label": str(truth) | (None as truth),
            **further,
        } if jsonl.is_time(time_s) and not further:
            return ShadowPair(
                request_id=request_id,
                time_s=time_s,
                champion=champion,
                challenger=challenger,
                label=truth,
            )
    raise ValueError("no shadow pair has such fields")


def cursors(folder: Path, log: Path, since: int) -> Cursors:
    """Find how far the sources were read, by what the journal holds of them.

    The last journalled request is looked for in the log; the others are counted.
    """
    last, counts = None, {"p": 0, "l": 0}
    for records in jsonl.read(folder / "journal.jsonl", 0, take=_journalled)[0]:
        for kind, request_id in records:
            if kind in counts:
                counts[kind] += 1
            elif kind == "a":
                last = request_id
    return Cursors(
        log=since if last is None else access_log.after(log, since, last),
        pairs=jsonl.skip(folder / "shadow.jsonl", counts["p"], take=pair),
        labels=jsonl.skip(folder / "labels.jsonl", counts["l"], take=label),
    )


def _journalled(doc: JsonObject) -> list[tuple[str, str]]:
    """Return the kind and the request of each record that one line of a journal judged."""
    match doc:
        case {"event": {"observed": [*rows]}}:
            found = [(row[0], row[1]) for row in rows if isinstance(row, list)]
            return [(str(kind), str(request_id)) for kind, request_id in found]
    return []


def attempts_of(line: LoggedRequest) -> Iterable[Attempt]:
    """Turn one line of the router's log into attempts: the draw's own first, then the replays.

    A try whose caller left has the status 499, and the time waited. Where a promoted release serves
    in the champion's place its requests are its own: the draw says champion, the server challenger.
    """
    if not line.tries or line.tries[0].arm is None:
        return
    assigned = Arm(line.tries[0].arm)
    drawn_so = assigned.value == line.drawn
    weight = line.weight_percent / 100 if drawn_so else float(assigned is Arm.CHALLENGER)
    key = hashlib.sha256(line.key.encode()).hexdigest()[:16] if line.key else None
    last = len(line.tries) - 1
    for index, one in enumerate(line.tries):
        gone = line.status == CLIENT_GONE and index == last and one.status == access_log.NO_ANSWER
        own_ms = line.own_ms if index == last else None
        if one.arm is not None:
            yield Attempt(
                request_id=line.request_id,
                time_s=line.time_s,
                arm=Arm(one.arm),
                assigned=assigned,
                weight=weight,
                status=CLIENT_GONE if gone else one.status,
                latency_ms=judged_ms(one.latency_ms, own_ms),
                replay=index > 0,
                key_hash=key,
            )
