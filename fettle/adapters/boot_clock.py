"""Boot clock: seconds that no step of the wall clock moves, the same in all processes of a boot.

On Linux seconds since this boot, a suspended machine's too, plus a number of the boot's own, so
that a time of another boot is neither near nor mistaken. Elsewhere it is the wall clock.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from fettle import manifest
from fettle.json_values import read_object

EPOCH = 1e9  # a time after this is the wall clock's, in seconds since 1970


def now_s() -> float:
    """Return the time."""
    if sys.platform != "linux":
        return time.time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) + boot_number()


def boot_number() -> int:
    """Return this boot's number, below 2^28; 0 where the system does not say."""
    try:
        return int(Path("/proc/sys/kernel/random/boot_id").read_text()[:7], 16)
    except (OSError, ValueError):
        return 0


class SteadyClock:
    """The wall clock as it was when the file was written, moved on by the boot clock alone.

    After a reboot it is set anew, by the wall clock.
    """

    def __init__(self, path: Path) -> None:
        self._offset = time.time() - now_s()
        match read_object(path):
            case {"boot": int(boot), "offset_s": float(offset) | int(offset), **further} if (
                boot == boot_number() and not further
            ):
                self._offset = offset
            case _:
                with suppress(OSError):  # a full disk: the next start tries again
                    doc = {"boot": boot_number(), "offset_s": self._offset}
                    manifest.write_text(path, json.dumps(doc))

    def now_s(self) -> float:
        """Return seconds since 1970."""
        return now_s() + self._offset
