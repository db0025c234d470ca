"""Order queue: `fettle canary` puts an order into the inbox, the controller answers in the outbox.

    inbox/N.json     taken in order, deleted when obeyed
    outbox/N.json    what became of it; N.bad is an order that could not be read

An order of another version, or one that nobody waits for any more, is refused in words.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fettle import manifest
from fettle.adapters import boot_clock
from fettle.errors import FettleError, UserError
from fettle.json_values import JsonObject
from fettle.rollout.promotion.decision_engine import OrderedBy
from fettle.rollout.promotion.rollout_state import Verb
from fettle.rollout.supervisor.state_layout import VERSION, StateLayout

ORDER_S = 60.0  # an order older than this is not obeyed, unless it says otherwise
UNTIL_MOST_S = 3600.0  # nobody waits so long
FORGET = "forget"
SAID_MOST = 500  # letters of who, and of why
VERBS = ("start", *(verb.value for verb in Verb), FORGET)


def submit_order(
    place: StateLayout,
    order: Mapping[str, object],
    *,
    timeout_s: float = ORDER_S,
) -> str:
    """Put an order into the inbox; return its name. Names sort by time.

    It is not obeyed any more once `timeout_s` have passed: then nobody waits for it.
    """
    place.inbox.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{os.getpid()}"
    doc = {"version": VERSION, "until_s": boot_clock.now_s() + timeout_s, **order}
    manifest.write_json(place.inbox / f"{name}.json", doc)
    return name


def withdraw_order(place: StateLayout, name: str) -> None:
    """Take an order back, unless it is being obeyed."""
    (place.inbox / f"{name}.json").unlink(missing_ok=True)


def ordered_by(order: Mapping[str, object]) -> OrderedBy:
    """Say who gave an order, and why, in one line each."""
    said = (" ".join(str(order.get(name) or "").split())[:SAID_MOST] for name in ("who", "why"))
    return OrderedBy(*said)


def pending_orders(place: StateLayout) -> Iterator[tuple[str, JsonObject]]:
    """Read the orders in the inbox, oldest first; `obeyed` takes one away.

    What is no order, or too old to be obeyed, is answered here and put aside as outbox/NAME.bad.
    """
    for path in sorted(place.inbox.glob("*.json")):
        try:
            doc = _order(path)
        except UserError as err:
            place.outbox.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                path.rename(place.outbox / f"{path.stem}.bad")
            answer_order(place, path.stem, {"error": str(err), "kind": err.kind})
            continue
        if doc is not None:
            yield path.stem, doc


def _order(path: Path) -> JsonObject | None:
    """Read one order; None when it was taken back meanwhile."""
    try:
        doc = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as err:
        raise UserError("an order cannot be read", got=str(err), fix="give it again") from err
    if not isinstance(doc, dict) or doc.get("verb") not in VERBS:
        raise UserError(
            "an order cannot be understood",
            got=json.dumps(doc)[:80],
            rule=f"its verb is one of {', '.join(VERBS)}",
            fix="give it again by `fettle canary`",
        )
    version = doc.get("version", VERSION)
    if version != VERSION:
        raise UserError(
            "the supervisor does not understand this order",
            got=f"one of version {version}",
            rule=f"it takes version {VERSION}",
            fix="`fettle canary stop`, then `fettle serve`, start it in the version that orders",
        )
    until_s = doc.get("until_s")
    if "until_s" in doc and not _waited_for(until_s):
        raise UserError(
            f"the order to {doc['verb']} came too late",
            got=f"one that was to be obeyed before {until_s}",
            rule="an order that nobody waits for any more is not obeyed",
            fix="give it again",
        )
    return doc


def _waited_for(until_s: object) -> bool:
    """Say whether somebody still waits: on the boot clock, so none of another boot is obeyed."""
    if not isinstance(until_s, int | float):
        return False
    if until_s > boot_clock.EPOCH:  # of an earlier version's command
        return time.time() <= until_s
    return 0 <= until_s - boot_clock.now_s() <= UNTIL_MOST_S


def obey_pending(
    place: StateLayout, obey: Callable[[Mapping[str, object]], Mapping[str, object]]
) -> None:
    """Obey the orders in the inbox and answer each; what `obey` did not foresee is raised again."""
    for name, order in pending_orders(place):
        try:
            answer = obey(order)
        except FettleError as err:
            answer = {"error": str(err), "kind": err.kind}
        except Exception as err:
            # answered first, so that the order is not obeyed to the same end at the next start
            why = f"the supervisor failed while it obeyed: {type(err).__name__}: {err}"
            answer_order(place, name, {"error": why, "kind": "ours"})
            raise
        answer_order(place, name, answer)


def answer_order(place: StateLayout, name: str, answer: Mapping[str, object]) -> None:
    """Answer an order, then take it out of the inbox: killed between, it is obeyed again."""
    place.outbox.mkdir(parents=True, exist_ok=True)
    manifest.write_json(place.outbox / f"{name}.json", answer)
    with suppress(FileNotFoundError):
        (place.inbox / f"{name}.json").unlink()


def await_answer(place: StateLayout, name: str, *, timeout_s: float) -> JsonObject | None:
    """Wait for what became of an order; None when nobody obeyed in time."""
    path = place.outbox / f"{name}.json"
    deadline = time.monotonic() + timeout_s
    while not path.is_file():
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    doc: JsonObject = json.loads(path.read_text())
    path.unlink()
    return doc
