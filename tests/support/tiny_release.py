"""Package a tiny project: every artefact from export to verdict, then the release folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.numpy import save_file
from tiny_project import CLASSES, COUNTS, ROOT, TinyProject, settings

from fettle import manifest
from fettle.data import split_reader
from fettle.evaluation import accuracy_statistics
from fettle.facts.compress_facts import CompressFacts
from fettle.hardware.runtimes import ort
from fettle.measure import Measure
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import export, package, select, verdict

TARGETS = ("x86_ort_fp32", "x86_ort_int8")
EXPORTS = tuple(f"export@{target}" for target in TARGETS)
READS = (
    "ingest",
    "validate",
    "finetune",
    "compress",
    *EXPORTS,
    *(f"evaluate@{target}" for target in TARGETS),
    "select",
    "verdict",
)
# 60 test images prove no drop to be below 0.02, whatever the model
WIDE = "compress.budget.drop_max=0.2"
SPEEDUP = Measure(value=2.5, unit="x", n=20, low=2.0, high=3.0)
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
        self.project.seal(
            "verdict",
            facts=judged.facts,
            measures=dict(judged.measures),
            made_of=("ingest", "validate", "finetune", *EXPORTS, "select"),
        )

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
        self.project.seal("validate", facts={"passed": True, "quarantined": 2}, made_of=("ingest",))
        model = {"family": "onnx_file", "classes": CLASSES, "trains": False, "licence": None}
        self.project.seal("finetune", facts=model, made_of=("ingest", "validate"))
        sealed = manifest.read(self.project.folder("compress"), CompressFacts)
        self.project.seal("compress", facts=sealed.facts, made_of=("finetune",))

    def _seal_target(self, target: str) -> None:
        out = self.project.folder(f"export@{target}")
        inputs = self.project.inputs("ingest", "validate", "compress", target=target)
        made = export.run(settings(*SETTINGS), inputs, out, MemoryRecorder())
        above = ("ingest", "validate", "compress")
        self.project.seal(f"export@{target}", facts=made.facts, made_of=above)
        facts = {
            "target": target,
            "verdict": "ship",
            "evidence": "measured",
            "reason": "faster",
            "size_bytes": made.facts.size_bytes,
        }
        self.project.folder(f"evaluate@{target}")
        self.project.seal(
            f"evaluate@{target}",
            facts=facts,
            measures=self._score(target) | {"speedup": SPEEDUP},
            made_of=(*above, "finetune"),
        )

    def _score(self, target: str) -> dict[str, Measure]:
        """Leave the answers to the validation images, and return their figures."""
        images = split_reader.images(
            self.project.inputs("ingest", "validate"), settings(*SETTINGS), "validation"
        )
        batch = split_reader.preprocess(settings(*SETTINGS)).normalise(images.pixels)
        before, after = (
            ort.open(self.project.folder(stage) / "model.onnx", threads=1).run(batch)
            for stage in ("finetune", f"export@{target}")
        )
        labels = images.labels
        place = self.project.folder(f"evaluate@{target}") / "answers.safetensors"
        save_file({"baseline": before, "candidate": after, "labels": labels}, place)
        first = accuracy_statistics.summary(before, labels)
        return {
            **accuracy_statistics.summary(after, labels),
            **{f"baseline_{name}": value for name, value in first.items()},
            **{
                f"{name}_drop": accuracy_statistics.drop(name, before, after, labels)
                for name in first
            },
            "churn": accuracy_statistics.churn(before, after),
        }

    def _seal_choice(self) -> None:
        evaluated = tuple(f"evaluate@{target}" for target in TARGETS)
        above = (*evaluated, "compress", "validate")
        asked = settings(*SETTINGS, f"compress.objective.target={self.chosen}")
        folder = self.project.folder("select")
        made = select.run(asked, self.project.inputs(*above), folder, MemoryRecorder())
        self.project.seal("select", facts=made.facts, made_of=above)
