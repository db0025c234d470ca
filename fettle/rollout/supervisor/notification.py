"""Notification hooks: a webhook and a command are told of what a person would want to know.

    FETTLE_WEBHOOK        an http(s) address: POST of the event as JSON, tried again for a minute
    FETTLE_HOOK_COMMAND   a command line, run without a shell; the event is its standard input

An event is {"event": paused | rolled_back | promoted | aborted | alarm | crash_loop, "rollout",
"challenger", "champion", "reason", "weight_percent", "time_s"}. Both run in a process of their own,
`python -m` with this module, the event and the log: what serves never waits for them. Each event of
a rollout is told once; which were stands in rollouts/ID/told.json.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from fettle import manifest
from fettle.adapters import process_identity
from fettle.errors import UserError
from fettle.json_values import read_object
from fettle.rollout.promotion.rollout_state import Phase, RolloutState

WEBHOOK, COMMAND = "FETTLE_WEBHOOK", "FETTLE_HOOK_COMMAND"
TOLD = "told.json"
LOG = "notification.log"
PHASES = (Phase.PAUSED, Phase.ROLLED_BACK, Phase.PROMOTED, Phase.ABORTED)
CRASH_LOOP, ALARM = "crash_loop", "alarm"
AGAIN_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
TIMEOUT_S = 10.0
COMMAND_S = 60.0


class NotifiedEvent(TypedDict, total=False):
    """What happened, for who is told."""

    event: str
    rollout: str
    challenger: str
    champion: str | None
    reason: str
    weight_percent: float
    time_s: float


def check(environ: Mapping[str, str]) -> None:
    """Raise UserError for a webhook that is no address, or a command that is none."""
    if (address := environ.get(WEBHOOK)) is not None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"{WEBHOOK} is no address",
                got=address,
                rule="it is asked by POST: http://… or https://…",
                fix=f"mend it, or unset {WEBHOOK}: then nobody is told",
            )
    if (line := environ.get(COMMAND)) is not None:
        try:
            words = shlex.split(line)
        except ValueError as err:
            words, why = [], str(err)
        else:
            why = "no word"
        if not words:
            raise UserError(
                f"{COMMAND} is no command line",
                got=f"{line!r} ({why})",
                rule="words as in a shell, which it is not: no pipe, no variable",
                fix=f"name a script that does it, or unset {COMMAND}",
            )


def tell_moved(folder: Path, state: RolloutState, reason: str) -> None:
    """Tell where a rollout stands now, unless that was told; `folder` is the rollout's."""
    event = ALARM if state.paged and state.phase is Phase.PROMOTED else state.phase.value
    if event != ALARM and state.phase not in PHASES:
        event = ""  # it moves: the next pause is another
    known = (read_object(folder / TOLD) or {}).get("event", "")
    if event == known:
        return
    manifest.write_json(folder / TOLD, {"event": event})
    if event:
        doc = NotifiedEvent(
            event=event,
            rollout=state.rollout_id,
            challenger=state.challenger,
            champion=state.champion,
            reason=reason,
            weight_percent=state.weight_percent,
            time_s=time.time(),
        )
        tell(folder.parents[1], doc)


def tell(canary: Path, event: NotifiedEvent) -> None:
    """Tell in the background, where somebody is to be told; `canary` has the log."""
    if not (os.environ.get(WEBHOOK) or os.environ.get(COMMAND)):
        return
    _spawn(canary, event, os.environ)


def tell_to(
    canary: Path, doc: Mapping[str, object], *, webhook: str = "", command: str = ""
) -> None:
    """Tell anything to one address, or to one command, in the background."""
    _spawn(canary, doc, {**os.environ, WEBHOOK: webhook, COMMAND: command})


def _spawn(canary: Path, doc: Mapping[str, object], environ: Mapping[str, str]) -> None:
    words = [sys.executable, "-P", "-m", __name__, json.dumps(doc)]
    with suppress(OSError):
        process_identity.spawn(words, canary / LOG, cwd=canary, env=environ)


def main() -> None:
    """Tell one event; each of the two is tried though the other fails."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    event = json.loads(sys.argv[1])
    failed = False
    if address := os.environ.get(WEBHOOK):
        failed |= not _post(address, event)
    if line := os.environ.get(COMMAND):
        failed |= not _run(shlex.split(line), event)
    sys.exit(1 if failed else 0)


def _post(address: str, event: NotifiedEvent) -> bool:
    request = urllib.request.Request(
        address, json.dumps(event).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    why = ""
    for pause_s in (0.0, *AGAIN_S):
        time.sleep(pause_s)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                logging.info("told event=%s webhook=%s", event.get("event"), answer.status)
                return True
        except (urllib.error.URLError, OSError, ValueError) as err:
            why = str(err)
    logging.error("untold event=%s webhook why=%r", event.get("event"), why)
    return False


def _run(words: list[str], event: NotifiedEvent) -> bool:
    try:
        done = subprocess.run(
            words, input=json.dumps(event), text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        logging.error("untold event=%s command why=%r", event.get("event"), str(err))
        return False
    logging.info("told event=%s command=%s", event.get("event"), done.returncode)
    return done.returncode == 0


if __name__ == "__main__":
    main()
