from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import forged_release as forged
import pytest
from forged_release import Tamper, assigned, columns, edited, replaced
from published_release import PublishedRelease

from fettle import manifest
from fettle.cli import verify as command
from fettle.errors import TamperedError, UserError
from fettle.release import release_verification, signing

INT8, FP32 = "evaluate@x86_ort_int8", "evaluate@x86_ort_fp32"
TEST, VALIDATION = "evidence/test_answers.parquet", "evidence/validation_answers.parquet"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@pytest.fixture(autouse=True)
def own_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, home: Path) -> PublishedRelease:
    """Published once; every tamper works on a copy."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CONFIG_HOME", str(home))
    made = PublishedRelease(tmp_path_factory.mktemp("published"), chosen="x86_ort_int8")
    patch.undo()
    return made


def scaled(value: Any) -> Any:
    return value * 1.01 + 0.001


def more(value: Any) -> Any:
    return value + 1


def flipped(model: str) -> Any:
    """Make the first wrong answer of a model right."""

    def change(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
        answers = table[f"{model}.predicted"]
        wrong = (i for i, one in enumerate(answers) if one != table["label"][i])
        index = next(wrong, 0)
        label = table["label"][index]
        right = answers[index] != label
        answers[index] = label if right else next(one for one in table["label"] if one != label)
        return table

    return change


def without_last(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: values[:-1] for name, values in table.items()}


def first_again(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [values[0], *values[:-1]] for name, values in table.items()}


def surer(model: str) -> Any:
    def change(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
        name = f"{model}.probability"
        return {**table, name: [min(1.0, p + 0.05) for p in table[name]]}

    return change


def bytes_of(path: str, name: str) -> Tamper:
    def change(doc: Any) -> None:
        file = next(file for file in doc["files"] if file["path"] == name)
        file["bytes"] += 100

    return edited(path, change)


def flip_a_byte(path: str) -> Tamper:
    def tamper(release: Path) -> None:
        raw = bytearray((release / path).read_bytes())
        raw[len(raw) // 2] ^= 1
        (release / path).write_bytes(raw)

    return tamper


def removed(path: str) -> Tamper:
    return lambda release: (release / path).unlink()


# Of documents and answers: found out by what the release carries, whoever signs it.
STATED: dict[str, Tamper] = {
    "a byte of the model": flip_a_byte("model/model.onnx"),
    "gate: accuracy": assigned("gate.json", "measures/accuracy/value", scaled),
    "gate: an interval's end": assigned("gate.json", "measures/accuracy_drop/high", scaled),
    "gate: n": assigned("gate.json", "measures/accuracy/n", more),
    "gate: passed": assigned("gate.json", "passed", False),
    "gate: a sentence": assigned("gate.json", "reasons/0", "all is well"),
    "gate: the bound": assigned("gate.json", "budget/bound", 0.001),
    "card: a figure": replaced("card.md", "n = 90", "n = 900"),
    "card: a line": replaced("card.md", "## Limits", "It has no limits.\n\n## Limits"),
    "card: the size": replaced("card.md", " kB |", "0 kB |"),
    "validation: quarantined": assigned("validation.json", "quarantined", more),
    "bill: the model's digest": edited(
        "sbom.cdx.json",
        lambda doc: next(one for one in doc["components"] if one["bom-ref"] == "model").update(
            version="0" * 12
        ),
    ),
    "labels": edited("labels.json", lambda doc: doc[::-1]),
    "release: passed": assigned("release.json", "passed", False),
    "release: threads": assigned("release.json", "runtime/threads", 8),
    "release: data": assigned("release.json", "data/digest", "cd" * 32),
    "test answers: one flipped": columns(TEST, flipped("shipped")),
    "test answers: one of the float model": columns(TEST, flipped("float")),
    "test answers: one left out": columns(TEST, without_last),
    "test answers: one twice": columns(TEST, first_again),
    "test answers: surer": columns(TEST, surer("shipped")),
    "test answers: a class there is not": columns(
        TEST, lambda table: {**table, "shipped.predicted": ["nobody"] * len(table["label"])}
    ),
    "validation answers: one flipped": columns(VALIDATION, flipped("x86_ort_fp32")),
    "validation answers: another class": columns(
        VALIDATION, lambda table: {**table, "label": [9, *table["label"][1:]]}
    ),
    "evidence: no verdict": removed("evidence/verdict.json"),
    "evidence: no target": removed(f"evidence/{FP32}.json"),
    "evidence: no answers": removed(TEST),
    "evidence: torn": replaced("evidence/validate.json", "{", ""),
}
# Of manifests: the forger chains them anew and writes gate, card and all of them again.
SEALED: dict[str, Tamper] = {
    "verdict: accuracy": assigned("evidence/verdict.json", "measures/accuracy/value", 0.99),
    "verdict: a recall's interval": assigned(
        "evidence/verdict.json", "measures/recall.left/low", lambda low: low * 0.9
    ),
    "verdict: the ratio of sizes": assigned(
        "evidence/verdict.json", "measures/size_ratio/value", scaled
    ),
    "verdict: the speed-up": assigned(
        "evidence/verdict.json", "measures/latency_ratio/value", 2.75
    ),
    "verdict: another budget": assigned(
        "evidence/verdict.json", "facts/bounds/budget/drop_max", 0.5
    ),
    "verdict: no class bound": assigned(
        "evidence/verdict.json", "facts/bounds/class_drop_max", None
    ),
    "verdict: more parameters before": assigned(
        "evidence/verdict.json", "facts/float_model/parameters", more
    ),
    "verdict: images": assigned("evidence/verdict.json", "facts/n", more),
    "evaluate: accuracy": assigned(f"evidence/{INT8}.json", "measures/accuracy/value", 0.95),
    "evaluate: churn": assigned(f"evidence/{FP32}.json", "measures/churn/high", scaled),
    "evaluate: size": assigned(f"evidence/{FP32}.json", "facts/size_bytes", more),
    "export: bytes of another target": bytes_of("evidence/export@x86_ort_fp32.json", "model.onnx"),
    "finetune: bytes of the float model": bytes_of("evidence/finetune.json", "model.onnx"),
    "choice: chance": assigned("evidence/choice.json", "candidates/0/chance", 0.5),
    "choice: size": assigned("evidence/choice.json", "candidates/1/size_bytes", more),
    "ingest: the data": assigned("evidence/ingest.json", "facts/digest", "cd" * 32),
}


def derive(release: Path) -> None:
    release_verification.refuse(release_verification.derive(release), release)


def test_an_honest_release_is_accepted_and_says_what_was_derived(
    published: PublishedRelease, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(published.root)
    for named in (f"releases/{published.folder.name}", published.folder.name[:5], "tiny"):
        command.verify(named)
        first, *rest = capsys.readouterr().out.splitlines()
        assert first == (
            f"{published.folder.name} is what was signed, and every figure follows from what it "
            "carries"
        )
        parts = {line.split()[0]: int(line.split()[1]) for line in rest[:7]}
        assert set(parts) == {
            *("digests", "sizes", "quality", "gate", "choice", "documents", "report")
        }
        assert parts["quality"] > 200
        assert parts["report"] > 100
        assert "latency, energy, memory, parity and emulated accuracy: by the digests" in rest[7]


def test_it_needs_no_torch_and_no_network(published: PublishedRelease) -> None:
    import subprocess
    import sys

    code = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('it asked the network')\n"
        "socket.socket.connect = refuse\n"
        "sys.modules['torch'] = None\n"
        "from fettle.cli.main import main\n"
        f"sys.argv = ['fettle', 'verify', {str(published.folder)!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*STATED, *SEALED])
def test_a_tamper_is_refused_by_the_signature(
    published: PublishedRelease, tmp_path: Path, name: str
) -> None:
    """Changed under its signature; then sealed, chained and signed again with another key."""
    release = forged.copied(published.folder, tmp_path)
    before = forged.manifests(release)
    {**STATED, **SEALED}[name](release)
    with pytest.raises(TamperedError, match="is not what was signed"):
        command.verify(str(release))
    if name in SEALED:
        forged.forge(release, before)
    forged.seal(release)
    signed = forged.sign(release, tmp_path / "other.pem")
    with pytest.raises(TamperedError, match="is not what was signed"):
        command.verify(str(signed))


@pytest.mark.parametrize("name", STATED)
def test_a_tamper_that_is_sealed_and_signed_by_the_owner_is_refused_by_derivation(
    published: PublishedRelease, tmp_path: Path, name: str
) -> None:
    release = forged.copied(published.folder, tmp_path)
    STATED[name](release)
    forged.seal(release)
    signed = forged.sign(release)
    signing.verify(signed, signing.of_release(signed), os.environ)
    with pytest.raises(UserError, match=r"does not follow|does not fit together|no evidence"):
        command.verify(str(signed))


@pytest.mark.parametrize("name", SEALED)
def test_a_forger_who_chains_and_writes_everything_again_is_refused_by_derivation(
    published: PublishedRelease, tmp_path: Path, name: str
) -> None:
    release = forged.copied(published.folder, tmp_path)
    before = forged.manifests(release)
    SEALED[name](release)
    forged.forge(release, before)
    forged.seal(release)
    with pytest.raises(TamperedError, match=r"states what does not follow from what it carries"):
        command.verify(str(forged.sign(release)))


@pytest.mark.parametrize("seed", range(24))
def test_any_digit_of_any_document_that_is_changed_is_refused(
    published: PublishedRelease, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    release = forged.copied(published.folder, tmp_path)
    names = ["gate.json", "card.md", "validation.json", *sorted(forged.manifests(release))]
    path = release / draw.choice(names)
    text = path.read_text()
    number = draw.choice(list(re.finditer(r"[0-9]", text)))
    other = draw.choice([digit for digit in "0123456789" if digit != number[0]])
    path.write_text(text[: number.start()] + other + text[number.end() :])
    forged.seal(release)
    if seed % 2:
        signed = forged.sign(release, tmp_path / "other.pem")
        with pytest.raises(TamperedError, match="is not what was signed"):
            command.verify(str(signed))
    else:
        with pytest.raises(TamperedError):
            derive(forged.sign(release))


def test_a_figure_that_is_changed_in_the_report_is_refused(
    published: PublishedRelease, tmp_path: Path
) -> None:
    release = forged.copied(published.folder, tmp_path)
    report = tmp_path / "report" / "report.json"
    shutil.copytree(published.root / "report", report.parent)
    command.verify(str(release))
    for keys in (
        "quality/metrics/accuracy/drop/high",
        "quality/compressed/value",
        "quality/churn/n",
        "compression/size_ratio",
        "targets/0/size_bytes",
        "targets/1/accuracy_interval/low",
        "targets/0/measures/macro_f1_drop/value",
        "verdict/reasons/0",
    ):
        text = report.read_text()
        assigned("report.json", keys, lambda one: f"{one}!" if isinstance(one, str) else one + 1)(
            report.parent
        )
        with pytest.raises(TamperedError, match=r"report\.json .* is stated as"):
            command.verify(str(release))
        report.write_text(text)


def test_another_signer_is_accepted_with_his_public_key_only(
    published: PublishedRelease, tmp_path: Path
) -> None:
    release = forged.copied(published.folder, tmp_path)
    signed = forged.sign(release, tmp_path / "ci.pem")
    with pytest.raises(TamperedError):
        command.verify(str(signed))
    command.verify(str(signed), key=tmp_path / "ci.pub")
    with pytest.raises(UserError, match="there is no public key"):
        command.verify(str(signed), key=tmp_path / "none.pub")


def test_a_release_of_an_earlier_version_is_refused_in_words(
    published: PublishedRelease, tmp_path: Path
) -> None:
    release = forged.copied(published.folder, tmp_path)
    shutil.rmtree(release / "evidence")
    forged.seal(release)
    with pytest.raises(UserError) as caught:
        command.verify(str(forged.sign(release)))
    assert "carries no evidence to derive its figures from: got no evidence/verdict.json" in str(
        caught.value
    )


def test_a_release_under_another_ones_name_is_refused(
    published: PublishedRelease, tmp_path: Path
) -> None:
    release = forged.copied(published.folder, tmp_path)
    renamed = release.rename(release.with_name("0" * manifest.SHORT))
    shutil.copyfile(signing.of_release(published.folder), signing.of_release(renamed))
    with pytest.raises(TamperedError):
        command.verify(str(renamed))
