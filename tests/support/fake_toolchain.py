"""A toolchain's script as fettle/hardware/isolated/worker_harness.py runs it, with faults.

Not imported by tests: a worker runs it in a Python that need not have fettle.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


class Model:
    """Answers each image with its mean and the mean's negative; `{"slow_ms": …}` in the entry."""

    def __init__(self, entry):
        self._told = json.loads(Path(entry).read_text())
        self.shape = self._told.get("shape", [None, 1, 8, 8])
        self._weights = np.ones(self._told.get("megabytes", 0) * 250_000, np.float32)

    def __call__(self, batch):
        time.sleep(self._told.get("slow_ms", 0) / 1000)
        if self._told.get("dies_on_run"):
            os.kill(os.getpid(), signal.SIGSEGV)
        means = batch.reshape(len(batch), -1).mean(axis=1)
        return np.stack([means, -means], axis=1)


def toolkit():
    pass


def open(entry, threads):
    return Model(entry)


def echo(**words):
    return words


def about():
    names = ("PYTHONPATH", "OMP_NUM_THREADS", "TMPDIR")
    loaded = [name for name in sys.modules if name.startswith("fettle")]
    return {
        "cwd": str(Path.cwd()),
        "loaded": loaded,
        **{name: os.environ.get(name) for name in names},
    }


def noisy():
    sys.stdout.write("progress: 50 %\n")
    sys.stdout.flush()
    os.write(1, b"a library's own words\n")
    return {"done": True}


def say(text):
    sys.stderr.write(text)
    sys.stderr.flush()


def refuse():
    raise ValueError("the operator Foo is not known")


def leave(code):
    sys.exit(code)


def leave_at_once(code):
    os._exit(code)


def crash():
    say("loading the tables\nassertion failed: reuse_factor <= 9\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def hang():
    say("placing and routing\n")
    time.sleep(600)


def hold_the_interpreter():
    ctypes.PyDLL(None).sleep(600)  # PyDLL: other threads of this process cannot run meanwhile


def hoard(megabytes):
    kept = np.ones(megabytes * 250_000, np.float32)
    time.sleep(600)
    return {"kept": len(kept)}


def child_hoards(megabytes):
    code = f"import time; kept = b'x' * {megabytes * 1_000_000}; time.sleep(600)"
    return {"code": subprocess.run([sys.executable, "-c", code], check=False).returncode}


def flood(megabytes):
    for _ in range(megabytes):
        sys.stderr.write("x" * 999_999 + "\n")
    sys.stderr.write("the last line\n")
    sys.stderr.flush()
    return {"written": megabytes}


def spawn():
    child = subprocess.Popen(["sleep", "600"])
    return {"worker": os.getpid(), "child": child.pid}
