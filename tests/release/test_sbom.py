from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fettle.measure import Measure
from fettle.release import sbom
from fettle.release.locked_requirements import Package

MODEL = sbom.ModelComponent(
    name="digits",
    family="resnet",
    target="x86_ort_int8",
    files={"model/model.onnx": "12" * 32},
    digest="cd" * 32,
    licence="Apache-2.0",
    inputs="uint8 [N, 1, 8, 8]",
    outputs="logits float32 [N, 3]",
    measures={
        "accuracy": Measure(value=0.98, unit="1", n=90, low=0.92, high=1.0),
        "accuracy_drop": Measure(value=0.0, unit="1", n=90),
    },
)
DATA = sbom.DatasetComponent(source="shapes", digest="ab" * 32, rows=198, licence=None)
PACKAGES = [
    Package("click", "8.5.1", "BSD-3-Clause", ()),
    Package("numpy", "2.4.6", "BSD-3-Clause AND MIT", ()),
    Package("onnxruntime", "1.32.0", "MIT License", ("numpy", "not-listed")),
]
DIRECT = ["onnxruntime", "click"]


def written(**changes: Any) -> dict[str, Any]:
    text = sbom.text(replace(MODEL, **changes), DATA, PACKAGES, DIRECT)
    return dict(json.loads(text))


def component(doc: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in doc["components"] if one["name"] == name]
    return dict(found)


def test_it_is_cyclonedx_with_packages_model_and_data() -> None:
    doc = written()
    assert (doc["bomFormat"], doc["specVersion"]) == ("CycloneDX", "1.6")
    kinds = {one["name"]: one["type"] for one in doc["components"]}
    assert kinds == {
        "digits": "machine-learning-model",
        "shapes": "data",
        "click": "library",
        "numpy": "library",
        "onnxruntime": "library",
    }


def test_the_library_itself_reads_it_back() -> None:
    from cyclonedx.model.bom import Bom

    doc = written()
    bom = Bom.from_json(doc)  # type: ignore[attr-defined]  # added to the class by a decorator
    assert {one.name for one in bom.components} == {one["name"] for one in doc["components"]}


def test_the_model_is_named_by_its_digests() -> None:
    model = component(written(), "digits")
    assert model["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]
    assert model["version"] == "cd" * 6
    assert {(p["name"], p["value"]) for p in model["properties"]} == {
        ("fettle:target", "x86_ort_int8"),
        ("fettle:sha256:model/model.onnx", "12" * 32),
    }


def test_the_models_figures_carry_their_n_split_and_interval() -> None:
    card = component(written(), "digits")["modelCard"]
    assert card["modelParameters"] == {
        "task": "image classification",
        "architectureFamily": "resnet",
        "datasets": [{"ref": "data"}],
        "inputs": [{"format": "uint8 [N, 1, 8, 8]"}],
        "outputs": [{"format": "logits float32 [N, 3]"}],
    }
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {
            "type": "accuracy",
            "value": "0.98",
            "slice": "test split, n = 90",
            "confidenceInterval": {"lowerBound": "0.92", "upperBound": "1.0"},
        },
        {"type": "accuracy_drop", "value": "0.0", "slice": "test split, n = 90"},
    ]


@pytest.mark.parametrize(
    ("name", "licences"),
    [
        ("click", [{"license": {"id": "BSD-3-Clause"}}]),
        ("numpy", [{"expression": "BSD-3-Clause AND MIT"}]),
        ("onnxruntime", [{"license": {"name": "MIT License"}}]),
        ("shapes", None),
    ],
)
def test_a_licence_is_an_id_an_expression_or_a_name(name: str, licences: Any) -> None:
    doc = written()
    found = component(doc, name)
    assert [
        {kind: _without_marks(one) for kind, one in entry.items()}
        for entry in found.get("licenses", [])
    ] == (licences or [])


def _without_marks(licence: Any) -> Any:
    """Leave out what the library may add beside the licence itself."""
    if isinstance(licence, dict):
        return {key: licence[key] for key in ("id", "name") if key in licence}
    return licence


def test_who_needs_whom_is_told_among_what_is_listed() -> None:
    doc = written()
    needs = {one["ref"]: set(one.get("dependsOn", [])) for one in doc["dependencies"]}
    assert needs["release"] == {"model", "pkg:pypi/click@8.5.1", "pkg:pypi/onnxruntime@1.32.0"}
    assert needs["model"] == {"data"}
    assert needs["pkg:pypi/onnxruntime@1.32.0"] == {"pkg:pypi/numpy@2.4.6"}
    refs = {one["bom-ref"] for one in doc["components"]} | {"release"}
    assert set(needs) | set().union(*needs.values()) <= refs


def test_the_same_facts_give_the_same_bytes_without_a_clock() -> None:
    first = sbom.text(MODEL, DATA, PACKAGES, DIRECT)
    assert sbom.text(MODEL, DATA, PACKAGES, DIRECT) == first
    assert "timestamp" not in first


def test_another_content_has_another_serial_number() -> None:
    assert written()["serialNumber"].startswith("urn:uuid:")
    assert written()["serialNumber"] != written(digest="ef" * 32)["serialNumber"]
