"""Build a whole finished project with invented numbers, sealed as the stages seal it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fake_analyses import profiled, searched, sensitivity, validation_document
from fake_tree import Tree
from PIL import Image
from safetensors.numpy import save_file

from fettle import manifest
from fettle.data import image_table
from fettle.measure import Measure

PARITY = {"cosine": 0.9999, "max_abs": 1e-5, "relative": 1e-6, "top1": 1.0}
CLASSES = ["<b>&", "seven", "three"]
TARGETS = ["x86_ort_fp32", "x86_ort_int8", "x86_openvino_fp32", "x86_openvino_int8"]


def m(
    value: float, low: float | None = None, high: float | None = None, *, n: int = 899
) -> Measure:
    return Measure(value=value, unit="1", n=n, low=low, high=high)


def png(shade: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side), shade).save(buffer, "PNG")
    return buffer.getvalue()


def ingest(tree: Tree) -> None:
    rows = []
    for at in range(60):
        label = CLASSES[at % 3]
        rows.append(
            {
                "row": f"{at:04d}",
                "label": label,
                "group": None,
                "split": ("train", "train", "train", "validation", "test")[at // 3 % 5],
                "sha256": f"{at:064x}",
                "format": "PNG",
                "mode": "L",
                "width": 8,
                "height": 8,
                "low": 0.0,
                "high": 1.0,
                "error": None,
                "bytes": png(4 * at) if at else b"not an image",
            }
        )
    folder = tree.folder("ingest")
    pq.write_table(pa.Table.from_pylist(rows, image_table.SCHEMA), folder / image_table.IMAGES)
    splits = {"train": 12, "validation": 4, "test": 4}
    facts = {"source": "digits", "digest": "d" * 64, "rows": 60, "unreadable": 1, "groups": 0}
    divided = dict.fromkeys(splits, "drawn")
    tree.seal("ingest", {**facts, "classes": dict.fromkeys(CLASSES, splits), "splits": divided})


def validate(tree: Tree) -> None:
    folder = tree.folder("validate")
    rows = pq.read_table(tree.folder("ingest") / image_table.IMAGES, columns=["row"])[
        "row"
    ].to_pylist()
    pq.write_table(pa.table({"row": rows[1:]}), folder / image_table.ROWS)
    reason = "cannot be decoded: <script>alert(1)</script>"
    bad = [{"row": "0000", "rule": "unreadable", "reason": reason}]
    pq.write_table(pa.Table.from_pylist(bad), folder / image_table.QUARANTINE)
    check = {"name": "labels_known", "rule": "every label is known", "failing": "quarantine"}
    checks = [
        {**check, "passed": True, "observed": "3 labels & none else"},
        {**check, "rule": "every image decodes", "passed": False, "observed": "1 broken"},
    ]
    facts = {"passed": True, "rows": 60, "quarantined": 1, "by_rule": {"unreadable": 1}}
    facts["classes"] = {label: {"train": 12, "validation": 4, "test": 4} for label in CLASSES}
    document = validation_document(facts, checks)
    tree.seal("validate", {**facts, "checks": checks}, reads=("ingest",), validation=document)


def finetune(tree: Tree) -> None:
    curve = [
        {
            "epoch": at,
            "phase": "head" if at == 1 else "unfreezing" if at < 4 else "all",
            "train_loss": 2.0 / at,
            "validation_loss": 2.2 / at + 0.05,
            "validation_accuracy": 1 - 0.6 / at,
            "learning_rate": 2e-3 / at,
        }
        for at in range(1, 9)
    ]
    facts = {"family": "small_cnn", "options": {}, "classes": CLASSES, "trains": True}
    facts |= {"channels": 1, "size_px": 8, "epochs": 8, "best_epoch": 8, "params": 78_000}
    facts |= {"parity": PARITY, "notes": []}
    measures = {"accuracy": m(0.989, 0.96, 0.997, n=179)}
    tree.seal("finetune", facts, measures, reads=("ingest", "validate"), curve=curve)


def compress(tree: Tree) -> None:
    layers = [
        {
            "layer": f"blocks.{at}.conv",
            "kind": "Conv2d",
            "channels_before": 16 * (at + 1),
            "channels_after": 8 * (at + 1),
            "params_before": 1000 * (at + 1),
            "params_after": 260 * (at + 1),
            "macs_before": 90_000,
            "macs_after": 24_000,
        }
        for at in range(12)
    ]
    steps = [
        {
            "use": "prune",
            "params": 20_280,
            "macs": 288_000,
            "validation_accuracy": 0.97,
            "notes": [],
            "skipped": {},
        },
        {
            "use": "distil",
            "params": 20_280,
            "macs": 288_000,
            "validation_accuracy": 0.985,
            "notes": ["kept <all>"],
            "skipped": {"head": "protected"},
        },
    ]
    reads = ("ingest", "validate", "finetune")
    measures = {
        "accuracy": m(0.985, 0.95, 0.996, n=179),
        "params_before": m(78_000, n=1),
        "macs_before": m(1_080_000, n=1),
    }
    found = searched()
    kept = ("goal_met", "why", "truncated", "evaluations", "recipe_yaml", "tally", "predictor")
    facts = {"steps": steps, "trains": True, "classes": CLASSES, "calibration_digest": "f" * 64}
    facts |= {"recipe": found["recipe"], "parity": PARITY}
    facts["search"] = {key: found[key] for key in kept}
    rng = np.random.default_rng(1)
    for stage, scale in (("finetune", 1.0), ("compress", 0.5)):
        weights = {
            f"blocks.{at}.conv.weight": rng.normal(scale=0.1, size=(8, int(60 * scale) + at))
            for at in range(12 if stage == "finetune" else 11)
        }
        save_file(weights, tree.folder(stage) / "model.safetensors")
    tree.seal("finetune", tree.facts("finetune"), tree.measures("finetune"))
    tree.seal(
        "compress",
        facts,
        measures,
        reads=reads,
        layers=layers,
        search=found,
        sensitivity=sensitivity(),
    )


def evaluate(tree: Tree, target: str, *, at: int) -> None:
    runtime, precision = target.split("_")[1:]
    made: dict[str, Any] = {"target": target, "size_bytes": 90_000 // (at + 1)}
    made |= {"hardware": "x86", "runtime": runtime, "precision": precision}
    made |= {"version": "1.0", "dialect": None, "entry": "model.onnx"}
    int8 = target.endswith("int8")
    tree.seal(f"export@{target}", {**made, "kept_float": ["stem"]} if int8 else made)
    p50 = 0.62 / (at + 1)
    measures = {
        "accuracy": m(0.985 - 0.002 * at, 0.95, 0.996, n=179),
        "accuracy_drop": m(0.004, -0.01, 0.02, n=179),
        "baseline_accuracy": m(0.989, 0.96, 0.997, n=179),
        "baseline_latency_p50_ms": m(2.1, 2.05, 2.2, n=200),
        "plain_latency_p50_ms": m(0.63, 0.62, 0.65, n=200),
        "latency_p50_ms": m(p50, 0.98 * p50, 1.03 * p50, n=200),
        "latency_p95_ms": m(1.2 * p50, n=200),
        "latency_p99_ms": m(1.4 * p50, n=200),
        "speedup": m(2.1 / p50, 2.0 / p50, 2.2 / p50, n=200),
        "churn": m(0.006 * at, n=179),
        "speedup_over_best_float": m(2.5, 2.4, 2.6, n=200),
        "baseline_speedup_by_optimisation": m(1.5, 1.4, 1.6, n=200),
        "speedup_by_optimisation": m(1.25, 1.2, 1.3, n=200),
        "speedup_unoptimised": m(3.0, 2.9, 3.1, n=200),
    }
    refused = target == "x86_openvino_fp32"
    facts = {
        "target": target,
        "verdict": "refused" if refused else "ship",
        "evidence": "measured",
        "reason": "neither faster nor smaller than x86_ort_fp32" if refused else "",
        "size_bytes": 90_000 // (at + 1),
        "baseline_size_bytes": 13_500_000,
        "plain_size_bytes": 90_000,
        "parity": {"cosine": 0.9991, "max_abs": 0.21, "top1": 0.995},
        "latency_ms": {"p50": p50, "p95": 1.2 * p50, "p99": 1.4 * p50},
        "best_float": "openvino",
    }
    if target == "x86_ort_int8":
        facts["without_vnni"] = {
            "images": 179,
            "agreement": 0.97,
            "layers": {"blocks.4.conv": 0.031},
            "loses": True,
            "reason": "on x86 without VNNI it loses 3.0 % of accuracy",
        }
    profile = {
        "before": profiled(1.0, int8=False),
        "after": profiled(0.4, int8=target.endswith("int8")),
    }
    reads = ("ingest", "compress", "finetune")
    tree.seal(f"evaluate@{target}", facts, measures, reads=reads, profile=profile)


def verdict(tree: Tree) -> None:
    counts = [[298, 1, 0], [4, 296, 0], [0, 0, 300]]
    rows = [
        ("0012", "<b>&", "seven", 0.91, "<b>&"),
        ("0027", "seven", "<b>&", 0.55, "<b>&"),
        ("0042", "three", "three", 0.99, "three"),
    ]
    rows = [(*row, 0.97) for row in rows]
    names = ("row", "label", "predicted", "probability", "float_predicted", "float_probability")
    chances = {"probabilities": [0.1, 0.2, 0.7], "float_probabilities": [0.2, 0.2, 0.6]}
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) | chances for row in rows])
    pq.write_table(table, tree.folder("verdict") / "predictions.parquet")
    measures = {
        "accuracy": m(0.9944, 0.987, 0.9976),
        "float_accuracy": m(0.9967, 0.990, 0.999),
        "accuracy_drop": m(0.0022, -0.0031, 0.0083),
        "macro_f1": m(0.9943, 0.98, 0.998),
        "float_macro_f1": m(0.9966),
        "macro_f1_drop": m(0.0023),
        "recall.<b>&": m(0.9967, 0.98, 0.999, n=299),
        "float_recall.<b>&": m(1.0, 0.987, 1.0, n=299),
        "churn": m(0.004, 0.001, 0.01),
        "latency_ratio": m(6.77, 6.45, 7.1, n=200),
        "params_ratio": Measure(value=9.61, unit="x", n=1),
        "macs_ratio": Measure(value=7.9, unit="x", n=1),
        "size_ratio": Measure(value=31.2, unit="x", n=1),
    }
    facts = {
        "passed": True,
        "reasons": ["accuracy drops by 0.0022 on test, within the budget of 0.01"],
        "target": "x86_ort_int8",
        "metric": "accuracy",
        "split": "test",
        "classes": CLASSES,
        "n": 899,
        "failed": [],
        "budget": {"status": "met", "bound": 0.0074, "n_needed": None},
    }
    reads = ("ingest", "select")
    confusion = {"classes": CLASSES, "counts": counts, "float": counts}
    tree.seal("verdict", facts, measures, reads=reads, confusion=confusion)


def publish(tree: Tree) -> None:
    """Leave what the flow leaves after its last stage."""
    names = list(tree.digests)
    last = {
        "release": {
            "bento": "digits:0123456789ab",
            "name": "digits",
            "model_version": "3",
            "run_id": "a" * 32,
            "digest": "b" * 64,
            "folder": "releases/0123456789ab",
            "git": {"commit": "c" * 40, "dirty": True, "source": "e" * 64},
            "data": "d" * 64,
            "passed": True,
        },
        "stages": [
            {"name": name, "seconds": 0.4 + index, "cached": index < 2}
            for index, name in enumerate(names)
        ],
        "finished": "2026-11-23T04:00:00+00:00",
    }
    manifest.write_json(tree.root / ".fettle" / "last.json", last)
    inputs = tree.root / "inputs"
    manifest.write_json(inputs / "source.json", {"source": "digits", "digest": "d" * 64})
    manifest.write_json(inputs / "machine.json", {"cpu": "a processor", "cores": 2})


def build(root: Path) -> Tree:
    tree = Tree(root)
    for stage in (ingest, validate, finetune, compress):
        stage(tree)
    for index, target in enumerate(TARGETS):
        evaluate(tree, target, at=index)
    reads = tuple(f"evaluate@{target}" for target in TARGETS)
    facts = {"target": "x86_ort_int8", "why": "the fastest of 3 that may ship", "goal_met": True}
    choice = {
        **facts,
        "objective": {"minimise": "latency_p50_ms", "on": None},
        "budget": {"metric": "accuracy", "drop_max": 0.02, "confidence": 0.95},
        "chance_min": 0.7,
        "limits": {},
        "candidates": [],
    }
    tree.seal("select", facts, reads=reads, choice=choice)
    verdict(tree)
    made = {"digest": "b" * 64, "target": "x86_ort_int8", "passed": True, "size_bytes": 50_000}
    tree.seal("package", made, reads=("verdict",))
    publish(tree)
    return tree
