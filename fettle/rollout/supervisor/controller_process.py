"""Controller process, one a project: `python -m` with this module and ROOT.

Started by the watchdog, and started again when it dies. What no other part expects ends it here:
the challenger is sent no request until the next one has judged.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import time
from pathlib import Path

from fettle import project as projects
from fettle.adapters import process_identity
from fettle.errors import FettleError
from fettle.rollout.supervisor.controller import SAY, TICK_S, Controller
from fettle.rollout.supervisor.state_layout import ServingState, StateLayout


def main() -> None:
    """Run until SIGTERM; exit 1 with the reason in the log when it cannot go on."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    project = projects.find(Path(sys.argv[1]))
    os.environ.update(projects.environment(project))
    place = StateLayout(project.state / "canary")
    lock = (place.folder / "controller.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # another controller runs already
    process_identity.write(place.controller, process_identity.me())
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stopped.append(got))
    controller = Controller(project, place, _serving(place))
    try:
        controller.start()
        while not stopped:
            controller.tick()
            if not controller.behind:
                time.sleep(TICK_S)
    except Exception as err:
        SAY.exception("failed")
        controller.fail(err)  # the watchdog starts it again, later each time
        sys.exit(1)
    controller.close()


def _serving(place: StateLayout) -> ServingState:
    try:
        found = place.serving()
    except FettleError as err:
        SAY.error("%s", err)
        sys.exit(1)
    if found is None:
        SAY.error("nothing_to_serve file=%s", place.folder / "serving.json")
        sys.exit(1)
    return found


if __name__ == "__main__":
    main()
