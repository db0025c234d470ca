"""fettle.compress: a project of its own, run by the same command as every other project.

The folder is one that `fettle init` would have made, so that `fettle report`, `fettle serve` and
`fettle run` go on in it; the run is `fettle run` in a process of its own, whose stages, cache and
errors are therefore the command line's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fettle import manifest, params
from fettle import project as projects
from fettle.api import labelled_images, user_network
from fettle.cli.project_template import make_project, template
from fettle.errors import DataError, OurFault, ProjectError, UserError

MARK = Path(".fettle") / "python-api"  # this module made the project, and may write its params
_COMMAND = (sys.executable, "-P", "-m", "fettle.cli.main")
_TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class CompressedRelease:
    """What a run made: the release's folder, whether its gate passed, and why not.

    `report` is the document of `fettle report --json`; `project` the folder of the run, whose
    report/index.html is the page.
    """

    release: Path
    passed: bool
    reasons: tuple[str, ...]
    project: Path
    report: Mapping[str, object] = field(repr=False)


def compress(
    model: object,
    train: object,
    val: object = None,
    *,
    test: object = None,
    budget: float | str | Mapping[str, object] | None = None,
    project: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> CompressedRelease:
    """Compress a model on images: fine-tuned, cut, quantized, judged once on test, packaged.

    model     a family ("efficientnet_lite", {"family": "resnet", "options": {"depth": 18}}),
              "module:function" that builds one, an ONNX file, or a torch module
    train     a folder with a folder a class, a CSV or Parquet file with path and label, a pair
              (images, labels), or pairs (image, label) such as a torch Dataset gives
    val       as train; what choices are made by. Left out, it is drawn from train
    test      as train; judges once, at the end. Left out, it is drawn from train
    budget    how much accuracy may be lost: 0.02 is two points, as an upper bound on test; auto is
              the least that the test images can decide; or
              {"metric": …, "drop_max": …, "confidence": …}
    project   a new folder to work in, or one that an earlier call made: what is unchanged is then
              not done again. Left out, a new temporary folder, which stays
    settings  any keys of params.yaml: {"finetune.epochs_max": 3, "targets": ["x86_ort_int8"]}

    Raises FettleError as `fettle run` would say it, before any work where it can be known; a gate
    that does not pass is no error: `passed` is False.
    """
    with _folder(project) as folder:
        choice = user_network.choose(model, folder)
        data = _data(folder, train, val, test)
        _write_params(folder, choice, budget, settings or {})
        projects.set_local(folder, "data", data)
        report, text = _run(folder)
        _command(folder, "ui", "--stop")
    if report is None:
        raise OurFault("`fettle run` ended well and printed no report", got=text)
    last = projects.Project(folder, folder).read_last()
    if last is None:
        raise OurFault("`fettle run` ended and left no release", got=text)
    from fettle.facts.verdict_facts import VerdictFacts

    verdict = manifest.read(folder / "artifacts" / "verdict", VerdictFacts, verify=False)
    return CompressedRelease(
        release=folder / last.release.folder,
        passed=last.release.passed,
        reasons=tuple(verdict.facts.failed),
        project=folder,
        report=report,
    )


@contextmanager
def _folder(asked: str | Path | None) -> Iterator[Path]:
    """Make the project, or find the one of an earlier call; raises ProjectError."""
    if asked is None:
        folder = Path(tempfile.mkdtemp(prefix="fettle-")).resolve()
    else:
        folder = Path(asked).expanduser().resolve()
    projects.refuse_place(folder)
    if folder.exists() and not folder.is_dir():
        raise ProjectError("the project's place is a file", got=str(folder), fix="name a folder")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise ProjectError(
                f"{folder} was not made by fettle.compress",
                got=", ".join(sorted(p.name for p in folder.iterdir())[:5]),
                rule="its params.yaml would be written over",
                fix="name a new folder; in a project of yours use `fettle run`",
            )
    else:
        make_project(folder, data=folder / "data")
        (folder / MARK).parent.mkdir(exist_ok=True)
        (folder / MARK).touch()
    yield folder


def _data(folder: Path, train: object, val: object, test: object) -> Path:
    """Return where the images lie: the user's own folder, or a table of them in the project."""
    if val is None and test is None and isinstance(train, str | Path):
        place = Path(train).expanduser().resolve()
        if not place.exists():
            raise DataError(f"train: there is nothing at {place}", fix="name what is there")
        return place
    given = {"train": train, "validation": val, "test": test}
    splits = {name: data for name, data in given.items() if data is not None}
    return labelled_images.write(splits, folder / "data")


def _write_params(
    folder: Path,
    choice: user_network.FamilyChoice,
    budget: float | str | Mapping[str, object] | None,
    settings: Mapping[str, object],
) -> None:
    """Write params.yaml anew: the template, the model, the budget, then the settings."""
    import io

    from ruamel.yaml import YAML

    asked: dict[str, object] = {
        "release.name": "model",
        "finetune.family": choice.family,
        "finetune.options": dict(choice.options),
    }
    if not choice.trains:
        asked["compress.recipe"] = []
    if isinstance(budget, Mapping):
        asked |= {f"compress.budget.{key}": value for key, value in budget.items()}
    elif budget is not None:
        asked["compress.budget.drop_max"] = budget
    asked |= settings
    overrides = [f"{key}={_as_yaml(key, value)}" for key, value in asked.items()]
    doc = params.compose(template("photos.yaml"), overrides)
    params.check(doc, folder / "params.yaml")
    text = io.StringIO()
    YAML(typ="rt").dump(doc, text)
    manifest.write_text(folder / "params.yaml", text.getvalue())


def _as_yaml(key: str, value: object) -> str:
    """Write a value as JSON, which YAML reads; a setting may come as --set would have it."""
    if isinstance(value, str) and value[:1] in "[{":
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as err:
        raise UserError(
            f"settings: {key} has a value that params.yaml cannot hold",
            got=f"{type(value).__name__}",
            rule="values are numbers, texts, true, false, null, lists and mappings of these",
        ) from err


def _run(folder: Path) -> tuple[Mapping[str, object] | None, str]:
    """Run `fettle run`; return its report and the end of what it said.

    Raises UserError or OurFault with the command's own text when it made no release.
    """
    code, out, said = _command(folder, "run", "--json")
    text = "\n".join(said)
    # what a library prints may stand before it; a run whose gate did not pass has a report too
    printed = [line for line in out.splitlines() if line.startswith("{")]
    if code == 0 or printed:
        return (json.loads(printed[-1]) if printed else None), text
    last = [line.removeprefix("fettle: ") for line in said if line.startswith("fettle: ")]
    tail = said[said.index(f"fettle: {last[0]}") :] if last else said[-3:]
    kind = UserError if code == UserError.exit_code else OurFault
    raise kind("\n".join(tail).removeprefix("fettle: ").strip() or f"exit code {code}")


def _command(folder: Path, *words: str) -> tuple[int, str, list[str]]:
    """Run a command of fettle in the project, its progress on this process' error output."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*_COMMAND, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        text=True, errors="replace",
    )  # fmt: skip
    said: list[str] = []
    listener = threading.Thread(target=_listen, args=(process.stderr, said), daemon=True)
    listener.start()
    try:
        out = process.stdout.read() if process.stdout else ""
        code = process.wait()
    except BaseException:  # Ctrl-C, or the notebook's stop button
        process.terminate()
        process.wait()
        raise
    finally:
        listener.join(timeout=5)
        for stream in (process.stdout, process.stderr):
            if stream is not None and not listener.is_alive():
                stream.close()
    return code, out, said


def _listen(errors: IO[str] | None, said: list[str]) -> None:
    for line in errors or ():
        said.append(line.rstrip("\n"))
        del said[:-_TAIL_LINES]
        sys.stderr.write(line)
        sys.stderr.flush()
