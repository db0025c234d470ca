from __future__ import annotations

import subprocess
import sys
import time

SAYS_ITS_AGE = """
import time
from stages.__main__ import process_age_s
before = process_age_s()
time.sleep(0.3)
print(before, process_age_s())
"""


def test_a_process_knows_its_age_to_hundredths() -> None:
    """Not by psutil's: it is early by what /proc/stat cuts off the time of boot, up to a second."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SAYS_ITS_AGE], check=True, capture_output=True, text=True
    )
    lived = time.monotonic() - started
    before, after = map(float, done.stdout.split())
    assert before > 0
    assert after - before >= 0.3
    assert after <= lived + 0.02  # the kernel counts in hundredths
