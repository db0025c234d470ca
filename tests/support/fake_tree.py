"""A project's artefacts with invented facts, sealed stage by stage as the stages seal them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sample_facts

from fettle import manifest
from fettle.measure import Measure


class Tree:
    """Write a project stage by stage; `seal` may be called again to change one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digests: dict[str, str] = {}

    def folder(self, address: str) -> Path:
        folder = self.root / "artifacts" / address.replace("@", "/")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def seal(
        self,
        address: str,
        facts: Mapping[str, Any],
        measures: Mapping[str, Measure] | None = None,
        reads: tuple[str, ...] = (),
        **documents: Any,
    ) -> None:
        folder = self.folder(address)
        for name, document in documents.items():
            manifest.write_json(folder / f"{name}.json", document)
        sealed = manifest.write(
            folder,
            address,
            inputs={up: self.digests[up] for up in reads},
            measures=measures or {},
            facts=sample_facts.of(address, facts),
        )
        self.digests[address] = sealed.digest
        record = {
            "stage": address,
            "started": float(len(self.digests)),
            "seconds": 1.5 * len(self.digests),
            "peak_memory_bytes": 2**28,
            "host": "somewhere",
            "output_digest": sealed.digest,
        }
        manifest.write_json(self.root / "records" / f"{address}.json", record)

    def facts(self, address: str) -> dict[str, Any]:
        facts = manifest.read(self.folder(address), verify=False).facts.document
        assert isinstance(facts, dict)
        return facts

    def measures(self, address: str) -> Mapping[str, Measure]:
        return manifest.read(self.folder(address), verify=False).measures

    def drop(self, *addresses: str) -> None:
        for address in addresses:
            shutil.rmtree(self.folder(address))
            (self.root / "records" / f"{address}.json").unlink(missing_ok=True)
