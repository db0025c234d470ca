"""Package a tiny project: every artefact from export to verdict, then the release folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import sample_facts
from tiny_project import CLASSES, COUNTS, ROOT, TinyProject, settings

from fettle.measure import Measure
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import export, package, verdict

TARGETS = ("x86_ort_fp32", "x86_ort_int8")
EXPORTS = tuple(f"export@{target}" for target in TARGETS)
READS = (
    "ingest",
    "validate",
    "finetune",
    *EXPORTS,
    *(f"evaluate@{target}" for target in TARGETS),
    "select",
    "verdict",
)
# 60 test images prove no drop to be below 0.02, whatever the model
WIDE = "compress.budget.drop_max=0.2"
SETTINGS = (f"targets=[{', '.join(TARGETS)}]", "release.name=tiny", WIDE)


class TinyRelease:
    """A tiny project up to its verdict; `chosen` is what select took."""

    def __init__(self, root: Path, *, chosen: str = "x86_ort_fp32") -> None:
        self.project = TinyProject(root)
        self.chosen = chosen
        self.release = root / "artifacts" / "package" / "release"
        shutil.copytree(
            ROOT / "bentos", root / "bentos", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copyfile(ROOT / "requirements.lock", root / "requirements.lock")
        self._seal_data()
        for target in TARGETS:
            self._seal_target(target)
        self._seal_choice()
        out = self.project.folder("verdict")
        inputs = self.project.inputs("ingest", "validate", "finetune", *EXPORTS, "select")
        judged = verdict.run(settings(*SETTINGS), inputs, out, MemoryRecorder())
        self.project.seal("verdict", facts=judged.facts, measures=dict(judged.measures))

    def package(self, *overrides: str) -> Outputs:
        """Run the stage, from an empty folder as stages/__main__.py does."""
        shutil.rmtree(self.release.parent, ignore_errors=True)
        out = self.project.folder("package")
        inputs = self.project.inputs(*READS)
        return package.run(settings(*SETTINGS, *overrides), inputs, out, MemoryRecorder())

    def _seal_data(self) -> None:
        counts = {split: count // len(CLASSES) for split, count in COUNTS.items()}
        facts: dict[str, object] = {
            "source": "shapes",
            "digest": "ab" * 32,
            "rows": sum(COUNTS.values()),
            "classes": dict.fromkeys(CLASSES, counts),
            "licence": "CC0-1.0",
        }
        self.project.seal("ingest", facts=facts)
        self.project.seal("validate", facts={"passed": True, "quarantined": 2})
        model = {"family": "onnx_file", "classes": CLASSES, "trains": False, "licence": None}
        self.project.seal("finetune", facts=model)

    def _seal_target(self, target: str) -> None:
        out = self.project.folder(f"export@{target}")
        inputs = self.project.inputs("ingest", "validate", "compress", target=target)
        made = export.run(settings(*SETTINGS), inputs, out, MemoryRecorder())
        self.project.seal(f"export@{target}", facts=made.facts)
        facts = {
            "target": target,
            "verdict": "ship",
            "evidence": "measured",
            "reason": "faster",
            "size_bytes": made.facts.size_bytes,
        }
        accuracy = Measure(value=0.98, unit="1", n=60, low=0.91, high=1.0)
        self.project.folder(f"evaluate@{target}")
        self.project.seal(f"evaluate@{target}", facts=facts, measures={"accuracy": accuracy})

    def _seal_choice(self) -> None:
        speedup = Measure(value=2.5, unit="x", n=20, low=2.0, high=3.0)
        rows = [{"target": target, "speedup": speedup.to_dict()} for target in TARGETS]
        folder = self.project.folder("select")
        sample_facts.write_choice(folder, self.chosen, *rows, why="the fastest of 2")
        self.project.seal("select")
