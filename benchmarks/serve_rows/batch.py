"""Images a second at 32 images a request, as a share of ONNX Runtime alone on the same cores."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.serving import servers_under_load, wrk_load

if TYPE_CHECKING:
    from benchmarks.serve import Context

WHAT = "images/s at 32 a request, as a share of the bare runtime's"
GOAL = ">= 0.6 of bare"
SHARE = 0.6
IMAGES = 32
WORKERS = 2  # as many processes run the bare model as serve it
# Links that all come at once are not dealt evenly to the workers (4 may go to one): the more, the
# more even. A round in which one worker had them all is the row's low.
CONNECTIONS = 16
ROUNDS = 9
SEED = 20  # of the images that the bare model reads

# The bare model in a process of its own: float batches ready in memory, nothing else.
BARE = """
import json, sys, time
from pathlib import Path
import numpy as np
from fettle.serving import release_bundle
served = release_bundle.load(Path(sys.argv[1]))
pre = served.preprocess
shape = ({images}, pre.channels, pre.size_px, pre.size_px)
batch = pre.normalise(np.random.default_rng({seed}).integers(0, 256, shape, dtype=np.uint8))
end, done = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    served.session.run(batch)
    done += len(batch)
print(done / float(sys.argv[2]))
"""


def run(context: Context) -> list[BenchmarkRow]:
    """Measure both in turn, `ROUNDS` times."""
    if not wrk_load.available():
        return [benchmark_row.not_measured(WHAT, "1", GOAL, why=wrk_load.MISSING)]
    shares, served, bare = [], [], []
    with servers_under_load.fettle(context.release, context.scratch) as server:
        assert server.raw is not None
        sizes = server.raw.headers["x-shape"]
        request = replace(
            server.raw,
            body=server.raw.body * IMAGES,
            headers={**server.raw.headers, "x-shape": f"{IMAGES},{sizes}"},
        )
        assert len(json.loads(servers_under_load.answers(request) or b"[]")) == IMAGES
        for _ in range(ROUNDS):
            load = wrk_load.measure(
                request, connections=CONNECTIONS, seconds=context.seconds, scratch=context.scratch
            )
            assert load.refused == load.broken == 0
            served.append(load.per_second * IMAGES)
            bare.append(alone(context))
            shares.append(served[-1] / bare[-1])
    share = statistics.median(shares)
    return [
        benchmark_row.measured(
            f"images/s at {IMAGES} a request, share of bare",
            share,
            low=min(shares),
            high=max(shares),
            unit="1",
            n=ROUNDS,
            seeds=[SEED],
            goal=f">= {SHARE}",
            holds=share >= SHARE,
            note=f"{statistics.median(served):.0f} of {statistics.median(bare):.0f} images/s",
        )
    ]


def alone(context: Context) -> float:
    """Return the images/s of `WORKERS` bare processes at once."""
    words = [sys.executable, "-c", BARE.format(images=IMAGES, seed=SEED)]
    words += [str(context.release), str(context.seconds)]
    processes = [
        subprocess.Popen(words, cwd=context.root, stdout=subprocess.PIPE, text=True)
        for _ in range(WORKERS)
    ]
    return sum(float(process.communicate()[0]) for process in processes)
