"""SBOM (bill of materials) of a release: CycloneDX 1.6 JSON, packages, model and data in one.

Same inputs, same bytes: no timestamp, and the serial number is made of the content. The library
knows no model cards yet, so `modelCard` (1.6, section "ML-BOM") is laid over its output.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from fettle.manifest import SHORT
from fettle.measure import Measure
from fettle.release.locked_requirements import Package

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

ROOT, MODEL, DATA = "release", "model", "data"  # bom-refs; a package's is its purl


class BillDocument(TypedDict, total=False):
    """The parts of CycloneDX's JSON that are looked into here."""

    metadata: dict[str, object]
    components: list[dict[str, object]]
    serialNumber: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComponent:
    """What the bill says of the model: its files' digests, what made it and how well it does."""

    name: str
    family: str
    target: str
    files: Mapping[str, str]  # {path: sha256}
    digest: str
    licence: str | None
    inputs: str
    outputs: str
    measures: Mapping[str, Measure]  # on the test split


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetComponent:
    """What the bill says of the data set: `rows` images of `source`."""

    source: str
    digest: str
    rows: int
    licence: str | None


def text(
    model: ModelComponent,
    data: DatasetComponent,
    packages: Sequence[Package],
    direct: Sequence[str],
) -> str:
    """Return the bill as JSON text; `direct` names the packages the service itself imports."""
    doc = _from_library(model, data, packages, direct)
    doc["metadata"].pop("timestamp", None)  # the library always writes one
    for component in doc["components"]:
        if component["bom-ref"] == MODEL:
            component["modelCard"] = _model_card(model)
    doc.pop("serialNumber", None)
    content = json.dumps(doc, sort_keys=True, allow_nan=False)
    doc["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, content).urn
    return json.dumps(doc, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _from_library(
    model: ModelComponent,
    data: DatasetComponent,
    packages: Sequence[Package],
    direct: Sequence[str],
) -> BillDocument:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    def digest(hex_digits: str) -> HashType:
        return HashType(alg=HashAlgorithm.SHA_256, content=hex_digits)

    trained = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.name,
        version=model.digest[:SHORT],
        bom_ref=MODEL,
        hashes=[digest(model.digest)],
        licenses=_licences(model.licence),
        properties=[
            Property(name="fettle:target", value=model.target),
            *(Property(name=f"fettle:sha256:{p}", value=d) for p, d in model.files.items()),
        ],
    )
    images = Component(
        type=ComponentType.DATA,
        name=data.source,
        version=data.digest[:SHORT],
        bom_ref=DATA,
        hashes=[digest(data.digest)] if len(data.digest) == 64 else [],
        licenses=_licences(data.licence),
        properties=[Property(name="fettle:images", value=str(data.rows))],
    )
    libraries = {one.name: _library(one) for one in packages}
    root = Component(
        type=ComponentType.APPLICATION, name=model.name, version=model.digest[:SHORT], bom_ref=ROOT
    )
    bom = Bom(components=[trained, images, *libraries.values()])
    bom.metadata.component = root
    bom.register_dependency(root, [trained, *(libraries[name] for name in sorted(direct))])
    bom.register_dependency(trained, [images])
    for package in packages:
        known = [libraries[name] for name in package.requires if name in libraries]
        bom.register_dependency(libraries[package.name], known)
    doc: BillDocument = json.loads(JsonV1Dot6(bom).output_as_string())
    return doc


def _library(package: Package) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL("pypi", None, package.name, package.version)
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=_licences(package.licence),
    )


def _licences(stated: str | None) -> list[DisjunctiveLicense | LicenseExpression]:
    """Turn what a package states into an SPDX id or expression where it is one, else a name."""
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from cyclonedx.spdx import is_expression, is_supported_id

    if stated is None:
        return []
    if is_supported_id(stated):
        return [DisjunctiveLicense(id=stated)]
    return [LicenseExpression(stated) if is_expression(stated) else DisjunctiveLicense(name=stated)]


def _model_card(model: ModelComponent) -> dict[str, object]:
    metrics = [_metric(name, m) for name, m in sorted(model.measures.items())]
    return {
        "modelParameters": {
            "task": "image classification",
            "architectureFamily": model.family,
            "datasets": [{"ref": DATA}],
            "inputs": [{"format": model.inputs}],
            "outputs": [{"format": model.outputs}],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }


def _metric(name: str, measure: Measure) -> dict[str, object]:
    found: dict[str, object] = {
        "type": name if measure.unit == "1" else f"{name} ({measure.unit})",
        "value": repr(measure.value),
        "slice": f"test split, n = {measure.n}",
    }
    if measure.low is not None and measure.high is not None:
        bounds = {"lowerBound": repr(measure.low), "upperBound": repr(measure.high)}
        found["confidenceInterval"] = bounds
    return found
