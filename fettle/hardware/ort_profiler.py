"""ONNX Runtime profiler: each node of a model timed.

It writes one JSON event a node and run, in whole microseconds, and adds about one to each.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

from fettle.hardware.runtimes import Floats, Kernel, check_entry, ort

SUFFIX = "_kernel_time"


class OrtProfiler:
    """A session with the profiler on; see runtimes.Profiler."""

    def __init__(self, entry: Path, threads: int) -> None:
        check_entry(entry)
        toolkit = ort.toolkit()
        self._folder = tempfile.TemporaryDirectory(prefix="fettle-profile-")
        options = ort.session_options(toolkit, threads, entry)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name) / "ort")
        with ort.translated(f"ONNX Runtime cannot load {entry.name}"):
            self._session = toolkit.InferenceSession(str(entry), options, providers=[ort.PROVIDER])
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: Floats) -> object:
        """Run a batch float32 [N, C, H, W] once."""
        with ort.translated("ONNX Runtime cannot run the model"):
            return self._session.run(None, {self._input: batch})

    def kernels(self) -> list[Kernel]:
        """Stop; return the nodes of the runs so far, in the order they were executed."""
        with self._folder:
            events = json.loads(Path(self._session.end_profiling()).read_text())
        times: dict[str, list[float]] = {}
        about: dict[str, tuple[str, bool]] = {}
        for event in events:
            if event.get("cat") != "Node" or not event["name"].endswith(SUFFIX):
                continue
            name, facts = event["name"].removesuffix(SUFFIX), event["args"]
            times.setdefault(name, []).append(event["dur"] / 1000)
            if name not in about:
                types = [next(iter(tensor)) for tensor in facts.get("input_type_shape", [])]
                int8 = bool({"int8", "uint8"} & {*types[:1], *types[3:4]})
                kind = facts["op_name"]
                about[name] = kind, int8 or kind == "DynamicQuantizeMatMul"  # its input is float
        return [
            Kernel(name=name, kind=about[name][0], int8=about[name][1], ms=statistics.median(ms))
            for name, ms in times.items()
        ]
