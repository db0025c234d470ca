"""Int8 layout: the graph that static int8 starts from, and which operators are to stay float.

Nothing here depends on an image: what is laid out is the same for every range that is found later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.errors import ModelError
from fettle.operator_shape import HEAVY
from fettle.quantize import int8_dialects, operator_placement, qdq_graph
from fettle.quantize.int8_dialects import Int8Dialect
from fettle.quantize.ort_quantizer import prepare, translated

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class Int8Layout:
    """Int8 layout of a model: the float graph, folded; the names of nodes that stay float; a file
    of the graph.
    """

    prepared: ModelProto
    stays: list[str]
    source: Path


def lay_out(model: Path, folder: Path, *, dialect: Int8Dialect = int8_dialects.CPU) -> Int8Layout:
    """Fold the ONNX `model`, rewrite what hinders fusion, and say what stays float.

    `folder` is temporary. Raises ModelError when the graph branches on its data, or cannot be
    folded.
    """
    import onnx

    with translated(model):
        prepared = prepare(model, folder)
    _refuse_branches(model, prepared)
    qdq_graph.revive_dead_channels(prepared)
    operator_placement.name_nodes(prepared)
    operator_placement.pool_whole_maps(prepared)
    stays = operator_placement.float_head(prepared) if dialect.float_head else []
    source = folder / "prepared.onnx"
    onnx.save(prepared, source)
    return Int8Layout(prepared, stays, source)


def refuse_no_layers(name: str, prepared: ModelProto, coverage: qdq_graph.Coverage) -> None:
    """Raise ModelError when no layer of the model called `name` became int8."""
    if not coverage.quantized:
        raise ModelError(
            f"{name} cannot be quantized to int8",
            got=f"no {', '.join(HEAVY)} with constant weights among its "
            f"{len(prepared.graph.node)} operators",
            rule="int8 buys time in those operators only",
            fix="drop the int8 targets (params.yaml: targets)",
        )


def _refuse_branches(model: Path, proto: ModelProto) -> None:
    names = qdq_graph.branches(proto)
    if names:
        raise ModelError(
            f"{model.name} cannot be quantized to int8: it branches on its data",
            got=_show(names),
            rule="the int8 ranges are fixed before the run, so every image must take the same path",
            fix="drop the int8 targets (params.yaml: targets), or export the model without "
            "these operators",
        )


def _show(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count}x)" for name, count in sorted(counts.items()))
