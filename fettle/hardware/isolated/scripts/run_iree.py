"""IREE: compile for a device and run; in its own environment, by worker_harness.py.

The ONNX is imported at opset 20 (older ones are converted by onnx itself). What is compiled for
this CPU does not run on one without its instructions; what is compiled for arm64 is run by IREE's
own tool for it under qemu-user, a process for each batch.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

OPSET = 20
SHAPE = "shape.json"  # beside the entry: a compiled module does not tell its input's shape
ARM_TOOL = "foreign/iree/_runtime_libs/iree-run-module"  # in the environment
ARM_ROOT = "/usr/aarch64-linux-gnu"


def toolkit() -> None:
    """Import what running takes."""
    import iree.runtime  # noqa: F401  its memory counts as the toolchain's


def compile(model: str, out: str, entry: str, flags: str, device: str) -> dict[str, str]:
    """Write `entry` and shape.json of an ONNX to `out`."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    first = next(tensor for tensor in graph.input if tensor.name not in weights)
    sizes = first.type.tensor_type.shape.dim
    shape = [size.dim_value if size.HasField("dim_value") else None for size in sizes]
    _tool("iree-import-onnx", model, "-o", "model.mlir", "--opset-version", str(OPSET))
    # in the working folder: what goes through a shell there has a path that needs no quotes
    _tool("iree-compile", "model.mlir", "-o", "model.vmfb", *flags.split())
    shutil.move("model.vmfb", Path(out) / entry)
    (Path(out) / SHAPE).write_text(json.dumps({"shape": shape, "device": device}) + "\n")
    return {}


class IreeModel:
    """A loaded module: float32 [N, C, H, W] → logits [N, classes]."""

    def __init__(self, entry: str, threads: int) -> None:
        from iree import runtime

        if threads > 1:
            runtime.flags.parse_flags(f"--task_topology_group_count={threads}")
        config = runtime.Config("local-sync" if threads == 1 else "local-task")
        self._context = runtime.SystemContext(config=config)
        module = runtime.VmModule.mmap(self._context.instance, entry)
        self._context.add_vm_module(module)
        # named after the ONNX graph, with a twin "NAME$async"
        names = [name for name in module.function_names if name != "__init" and "$" not in name]
        self._function = self._context.modules[module.name][names[0]]
        self.shape = json.loads(Path(entry).with_name(SHAPE).read_text())["shape"]

    def __call__(self, batch: Floats) -> Floats:
        """Run a batch; the logits are copied to the host."""
        logits: Floats = self._function(batch).to_host()
        return logits


class ArmModel:
    """A module for arm64: each batch is one run of IREE's arm64 tool under qemu-user."""

    def __init__(self, entry: str) -> None:
        from iree import runtime

        instance = runtime.VmInstance()
        module = runtime.VmModule.mmap(instance, entry)
        names = [name for name in module.function_names if name != "__init" and "$" not in name]
        environment = Path(sys.executable).parent.parent
        tool = environment / ARM_TOOL
        tool.chmod(0o755)
        emulator = [] if platform.machine() == "aarch64" else ["qemu-aarch64", "-L", ARM_ROOT]
        self._command = [*emulator, str(tool), "--device=local-sync", f"--module={entry}"]
        self._command += [f"--function={names[0]}", "--input=@x.npy", "--output=@y.npy"]
        self.shape = json.loads(Path(entry).with_name(SHAPE).read_text())["shape"]

    def __call__(self, batch: Floats) -> Floats:
        """Run a batch."""
        import numpy as np

        np.save("x.npy", batch)
        Path("y.npy").unlink(missing_ok=True)
        done = subprocess.run(self._command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise RuntimeError(f"iree-run-module under qemu: {last[:300]}")
        logits: Floats = np.load("y.npy")
        return logits


def open(entry: str, threads: int) -> IreeModel | ArmModel:
    """Load a compiled module; one thread runs it in the caller's."""
    device = json.loads(Path(entry).with_name(SHAPE).read_text()).get("device", "")
    return ArmModel(entry) if device == "arm64" else IreeModel(entry, threads)


def _tool(name: str, *words: str) -> None:
    """Run one of IREE's tools; its words go to stderr, its last error becomes ours."""
    command = [str(Path(sys.executable).with_name(name)), *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line.lower()] or lines[-1:]
        last = errors[0].strip() if errors else f"exit code {done.returncode}"
        raise RuntimeError(f"{name}: {last[:300]}")
