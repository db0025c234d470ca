"""OpenVINO profiler: each node timed with its performance counters, in whole microseconds."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from fettle.hardware.runtimes import Floats, Kernel, openvino


class OpenvinoProfiler:
    """A compiled model with the counters on; see runtimes.Profiler."""

    def __init__(self, entry: Path, threads: int) -> None:
        model = openvino.compiled(entry, threads=threads, PERF_COUNT=True)
        self._request = model.create_infer_request()
        self._times: dict[str, list[float]] = {}
        self._about: dict[str, tuple[str, bool]] = {}

    def run(self, batch: Floats) -> object:
        """Run a batch float32 [N, C, H, W] once."""
        with openvino.translated("OpenVINO cannot run the model"):
            answers = self._request.infer({0: np.ascontiguousarray(batch)}, share_inputs=True)
        for node in self._request.profiling_info:
            if node.status.name == "EXECUTED":
                ms = node.real_time.total_seconds() * 1000
                self._times.setdefault(node.node_name, []).append(ms)
                int8 = node.exec_type.upper().endswith(("_I8", "_U8"))
                self._about[node.node_name] = node.node_type, int8
        return answers

    def kernels(self) -> list[Kernel]:
        """Return the nodes of the runs so far, in the order they were executed."""
        return [
            Kernel(name=name, kind=kind, int8=int8, ms=statistics.median(self._times[name]))
            for name, (kind, int8) in self._about.items()
        ]
