"""Vela: an ONNX to int8 TFLite, compiled for an Arm Ethos-U NPU; in its own environment.

By worker_harness.py. Vela writes the file with its own command stream, which nothing here can run;
what it was compiled from stays beside it and answers, in LiteRT's reference kernels, which are
what an Ethos-U's integers are defined by. Vela's own figures and what it left to the CPU go into
vela.json.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from .run_litert import TfliteModel

SOURCE = "int8.tflite"  # beside the entry: what Vela compiled
FIGURES = "vela.json"
NPU_OPERATOR = "ethos-u"


def toolkit() -> None:
    """Import what answering takes."""
    _beside("run_litert").toolkit()


def compile(model: str, out: str, entry: str, calibration: str, device: str) -> dict[str, str]:
    """Write `entry`, int8.tflite and vela.json of an ONNX to `out`.

    `device` are Vela's own words, `calibration` is a file of images.
    """
    source = Path(out) / SOURCE
    _beside("run_litert").compile(model, str(source), calibration, free_batch=False)
    _vela(str(source), "--output-dir", "vela", *shlex.split(device))
    (summary,) = Path("vela").glob("*_summary_*.csv")
    (compiled,) = Path("vela").glob("*_vela.tflite")
    compiled_bytes = compiled.read_bytes()
    (Path(out) / entry).write_bytes(compiled_bytes)
    (row,) = csv.DictReader(summary.read_text().splitlines())
    figures = {key: _number(value) for key, value in row.items()}
    fallback, total = left_to_cpu(compiled_bytes), len(_operators(source.read_bytes()))
    stated = {"figures": figures, "fallback": fallback, "operators": total}
    (Path(out) / FIGURES).write_text(json.dumps(stated, indent=1) + "\n")
    return {}


def left_to_cpu(compiled: bytes) -> list[str]:
    """Name the operators of a compiled file that the NPU does not run, by what they answer."""
    return [f"{kind} ({name})" for kind, name in _operators(compiled) if kind != NPU_OPERATOR]


def open(entry: str, threads: int) -> TfliteModel:
    """Load what an entry was compiled from, in LiteRT's reference kernels."""
    source = str(Path(entry).with_name(SOURCE))
    model: TfliteModel = _beside("run_litert").TfliteModel(source, threads, reference=True)
    return model


def _operators(data: bytes) -> list[tuple[str, str]]:
    """List the operators of a TFLite file: kind, and the name of the first tensor it makes."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        custom = (code.customCode or b"").decode()
        kind = custom or names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        found.append((kind, graph.tensors[operator.outputs[0]].name.decode()))
    return found


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _vela(*words: str) -> None:
    """Run Vela; its last error becomes ours."""
    command = [str(Path(sys.executable).with_name("vela")), *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines: Sequence[str] = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        told = [line.strip() for line in lines if re.search(r"error", line, re.IGNORECASE)]
        last = told[0] if told else f"exit code {done.returncode}"
        raise RuntimeError(f"vela: {last[:300]}")


def _beside(name: str) -> ModuleType:
    """Import a script of this folder; the harness loads this one as a lone file."""
    folder = str(Path(__file__).resolve().parents[1])
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(f"scripts.{name}")
