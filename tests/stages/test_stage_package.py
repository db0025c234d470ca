from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_project import CLASSES, ROOT, settings
from tiny_release import READS, SETTINGS, TinyRelease

from fettle import manifest
from fettle.data import split_reader
from fettle.errors import OurFault, ProjectError
from fettle.facts.export_facts import ExportFacts
from fettle.release import locked_requirements, source_closure
from fettle.serving import release_bundle
from stages import package

# Run with -I: the release is all there is beside the installed packages that it names, as on a
# machine where nothing but requirements.txt was installed.
ALONE = """
import json, re, sys
from importlib import metadata
from pathlib import Path

release = Path(sys.argv[1])
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
named = {line.partition("==")[0] for line in (release / "requirements.txt").read_text().split()}
packages = metadata.packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        owners = {normal(one) for one in packages.get(top, ())}
        if top == "fettle":
            return None
        if owners and not owners & named:
            raise ModuleNotFoundError(f"not in requirements.txt: {name}", name=name)

sys.path = [str(release), *(p for p in sys.path if "editable" not in p)]
sys.meta_path[:] = [Absent(), *(f for f in sys.meta_path if "editable" not in repr(f).lower())]
import numpy
import service
from fettle.serving import release_bundle

loaded = release_bundle.load(release)
preprocess = loaded.preprocess
pixels = numpy.zeros((2, preprocess.channels, preprocess.size_px, preprocess.size_px), numpy.uint8)
tops = ("fettle", "service")
ours = {n: m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] in tops}
print(json.dumps({
    "rows": loaded.predict(pixels).tolist(),
    "ours": {name: str(Path(file).relative_to(release)) for name, file in ours.items()},
    "torch": "torch" in sys.modules,
}))
"""

MEMBERS = {
    "bentofile.yaml",
    "card.md",
    *(f"evidence/{address}.json" for address in (*READS, "choice")),
    "evidence/test_answers.parquet",
    "evidence/verdicts.jsonl",
    "evidence/validation_answers.parquet",
    "fettle/__init__.py",
    "fettle/errors.py",
    "fettle/manifest.py",
    "fettle/measure.py",
    "fettle/hardware/__init__.py",
    "fettle/hardware/runtimes/__init__.py",
    "fettle/hardware/ort_profiler.py",
    "fettle/hardware/runtimes/ort.py",
    "fettle/serving/__init__.py",
    "fettle/serving/api_key_file.py",
    "fettle/serving/asgi_app.py",
    "fettle/serving/asgi_messages.py",
    "fettle/serving/request_batching.py",
    "fettle/serving/image_request.py",
    "fettle/serving/release_bundle.py",
    "fettle/serving/openapi_document.py",
    "fettle/serving/authentication.py",
    "fettle/serving/request_body.py",
    "fettle/serving/prometheus_metrics.py",
    "fettle/serving/predict_route.py",
    "fettle/preprocessing.py",
    "fettle/serving/request_telemetry.py",
    "fettle/process_lifetime.py",
    "gate.json",
    "labels.json",
    "model/model.onnx",
    "preprocess.json",
    "release.json",
    "requirements.txt",
    "sbom.cdx.json",
    "service.py",
    "validation.json",
}

PROFILING = {"fettle/hardware/ort_profiler.py"}  # imported where nothing that serves goes


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> TinyRelease:
    """Packaged once; the tests that use it only read."""
    work = TinyRelease(tmp_path_factory.mktemp("project"))
    work.package()
    return work


@pytest.fixture
def work(tmp_path: Path) -> TinyRelease:
    return TinyRelease(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read(work: TinyRelease, name: str) -> Any:
    return json.loads((work.release / name).read_text())


def images(work: TinyRelease) -> split_reader.Images:
    inputs = work.project.inputs("ingest", "validate")
    return split_reader.images(inputs, settings(*SETTINGS), "validation", most=8)


def test_a_release_holds_what_serving_needs_and_nothing_else(packaged: TinyRelease) -> None:
    assert set(content(packaged.release)) == MEMBERS


def test_release_json_digests_every_other_file(packaged: TinyRelease) -> None:
    files = read(packaged, "release.json")["files"]
    assert set(files) == MEMBERS - {"release.json"}
    for name, sha256 in files.items():
        assert sha256 == manifest.sha256_file(packaged.release / name)


def test_the_same_inputs_give_the_same_bytes_anywhere(
    packaged: TinyRelease, work: TinyRelease
) -> None:
    first = work.package()
    before = content(work.release)
    assert work.package() == first
    assert content(work.release) == before
    assert content(packaged.release) == before


def test_no_file_names_this_machine_or_a_folder_of_it(packaged: TinyRelease) -> None:
    for name, data in content(packaged.release).items():
        for told in (str(packaged.project.root), str(ROOT), str(Path.home()), platform.node()):
            assert not re.search(rf"(?<![\w.-]){re.escape(told)}(?![\w-])".encode(), data), name


def test_the_facts_name_the_release(work: TinyRelease) -> None:
    facts = work.package().facts
    assert facts.to_json() == {
        "digest": manifest.tree_digest(work.release),
        "target": "x86_ort_fp32",
        "passed": True,
        "size_bytes": sum(len(data) for data in content(work.release).values()),
    }
    assert facts.digest == release_bundle.load(work.release).digest


def test_the_signature_is_typed(packaged: TinyRelease) -> None:
    stated = read(packaged, "release.json")
    assert stated["schema"] == "fettle.release/1"
    assert stated["name"] == "tiny"
    assert stated["input"] == {"dtype": "uint8", "shape": [None, 1, 8, 8], "low": 0, "high": 255}
    assert stated["output"] == {"kind": "logits", "dtype": "float32", "shape": [None, 3]}
    assert stated["runtime"] == {
        "name": "ort",
        "entry": "model/model.onnx",
        "precision": "fp32",
        "threads": 1,
    }
    assert stated["data"]["digest"] == "ab" * 32
    assert stated["data"]["ingest"] == manifest.read(packaged.project.folder("ingest")).digest
    assert set(stated["versions"]) >= {"bentoml", "numpy", "onnxruntime", "pillow"}


def test_labels_and_preprocessing_are_the_trainings(packaged: TinyRelease) -> None:
    assert read(packaged, "labels.json") == CLASSES
    assert read(packaged, "preprocess.json") == settings().preprocess.model_dump()


def test_the_card_states_the_verdict(packaged: TinyRelease) -> None:
    card = (packaged.release / "card.md").read_text()
    assert card.startswith("# tiny\n")
    assert "The release gate passed." in card
    gate = read(packaged, "gate.json")
    assert gate["measures"]["accuracy"]["n"] == 90
    assert gate["artifact"] == manifest.read(packaged.project.folder("verdict")).digest


def test_the_chosen_target_is_the_one_that_is_carried(tmp_path: Path) -> None:
    work = TinyRelease(tmp_path, chosen="x86_ort_int8")
    assert work.package().facts.target == "x86_ort_int8"
    chosen = work.project.folder("export@x86_ort_int8") / "model.onnx"
    assert (work.release / "model" / "model.onnx").read_bytes() == chosen.read_bytes()
    assert read(work, "release.json")["runtime"]["precision"] == "int8"
    bill = json.dumps(read(work, "sbom.cdx.json"))
    assert manifest.sha256_file(chosen) in bill


def test_a_gate_that_did_not_pass_is_written_into_the_release(work: TinyRelease) -> None:
    sealed = manifest.read(work.project.folder("verdict"))
    facts = {**sealed.facts.document, "passed": False, "reasons": ["accuracy drops by too much"]}
    work.project.seal("verdict", facts=facts, measures=dict(sealed.measures))
    assert work.package().facts.passed is False
    assert read(work, "release.json")["passed"] is False
    assert read(work, "gate.json")["reasons"] == ["accuracy drops by too much"]
    assert (
        "did **not** pass.\n- accuracy drops by too much" in (work.release / "card.md").read_text()
    )


def test_requirements_are_a_part_of_the_lock_without_torch(packaged: TinyRelease) -> None:
    lines = (packaged.release / "requirements.txt").read_text().splitlines()
    wanted = dict(line.split("==") for line in lines)
    locked = locked_requirements.read_lock(ROOT / "requirements.lock")
    assert list(wanted) == sorted(wanted)
    assert {"bentoml", "onnxruntime", "numpy", "pillow"} <= set(wanted)
    assert {name: locked.get(name) for name in wanted} == wanted
    heavy = {"torch", "mlflow", "prefect", "dvc", "great-expectations", "pandas", "fettle-mlops"}
    assert not heavy & set(wanted)


def test_a_build_needs_no_network(packaged: TinyRelease) -> None:
    assert "lock_packages: false" in (packaged.release / "bentofile.yaml").read_text()


def test_a_release_runs_with_its_own_sources_and_requirements_alone(packaged: TinyRelease) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", ALONE, str(packaged.release)],
        cwd=packaged.release.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["torch"] is False
    assert found["ours"].pop("service") == "service.py"
    assert set(found["ours"].values()) == {
        name for name in MEMBERS - PROFILING if name.startswith("fettle/")
    }
    zeros = np.zeros((2, 1, 8, 8), dtype=np.uint8)
    np.testing.assert_allclose(found["rows"], release_bundle.load(packaged.release).predict(zeros))


def test_a_service_that_does_not_exist_is_refused(work: TinyRelease) -> None:
    with pytest.raises(ProjectError) as caught:
        work.package("release.service=detector")
    assert str(caught.value) == (
        "params.yaml: release.service names no service: got 'detector'; it is a folder in bentos/ "
        "with a service.py. Fix: set release.service to one of bentos/*."
    )


def test_a_package_that_is_not_the_locked_version_is_refused(work: TinyRelease) -> None:
    lock = work.project.root / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^bentoml==\S+", "bentoml==1.0.0", lock.read_text()))
    with pytest.raises(ProjectError, match=r"^the installed bentoml is not the locked one: got "):
        work.package()


def test_a_model_that_ends_in_softmax_is_known_by_its_answers(work: TinyRelease) -> None:
    folder = work.project.folder("export@x86_ort_fp32")
    model = onnx.load(folder / "model.onnx")
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(helper.make_node("Softmax", ["raw"], ["logits"]))
    onnx.save(model, folder / "model.onnx")
    facts = manifest.read(folder, ExportFacts, verify=False).facts
    plain = release_bundle.softmax(np.array([[2.0, 1.0, 0.0]]))
    work.project.seal("export@x86_ort_fp32", facts=facts)
    work.package()
    assert read(work, "release.json")["output"]["kind"] == "probabilities"
    answers = release_bundle.load(work.release).predict(images(work).pixels)
    assert answers.max() > plain.max()  # softened twice, nothing could exceed 0.58
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


def test_a_release_that_answers_otherwise_is_our_fault(packaged: TinyRelease) -> None:
    given = images(packaged)
    digest = manifest.tree_digest(packaged.release)
    logits = np.log(release_bundle.load(packaged.release).predict(given.pixels)).astype(np.float32)
    package.check(packaged.release, digest, given, logits)
    with pytest.raises(OurFault) as caught:
        package.check(packaged.release, digest, given, logits[::-1])
    assert re.fullmatch(
        r"the release answers otherwise than the file that was chosen: got digest [0-9a-f]{12}, "
        rf"probabilities up to \d\S* apart; digest {digest[:12]}, at most 1e-6 apart\.",
        str(caught.value),
    )
    with pytest.raises(OurFault):
        package.check(packaged.release, "0" * 64, given, logits)


def test_the_closure_follows_imports_wherever_they_stand(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "__init__.py").write_text("import json\n")
    (folder / "deep.py").write_text("from . import sibling\n")
    (folder / "sibling.py").write_text("def f():\n    import numpy.linalg\n")
    (folder / "unused.py").write_text("import torch\n")
    service = tmp_path / "service.py"
    service.write_text(
        "from typing import TYPE_CHECKING\nimport os\nfrom own.deep import name\n"
        "if TYPE_CHECKING:\n    import pandas\n"
    )
    found = source_closure.closure({"service.py": service}, {"own": folder})
    assert list(found.files) == ["own/__init__.py", "own/deep.py", "own/sibling.py", "service.py"]
    assert found.foreign == {"numpy"}


def test_an_import_of_a_missing_module_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    service = tmp_path / "service.py"
    service.write_text("import own.gone.deeper\n")
    with pytest.raises(OurFault) as caught:
        source_closure.closure({"service.py": service}, {"own": tmp_path / "own"})
    assert str(caught.value) == f"no module own.gone.deeper in {tmp_path}."
