"""What a user's own files can be like: broken, of a taken name, ending the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fettle.errors import ModelError
from fettle.models import user_code
from fettle.models.families import torch_module as family

Write = Callable[[str, str], Path]


def refusal(project: Path, entry: str) -> str:
    with pytest.raises(ModelError) as caught:
        family.build(family.Params(entry=entry), classes=3, channels=1, size_px=8, project=project)
    return str(caught.value)


def test_a_file_that_is_no_python_is_listed_and_its_line_named(project: Path, write: Write) -> None:
    broken = write("net_broken.py", "import part_x\n\ndef build(:\n    ...\n")
    assert user_code.source_closure(project, "net_broken") == [broken]
    text = refusal(project, "net_broken:build")
    assert text.startswith("finetune.options.entry: importing 'net_broken' failed: got SyntaxError")
    assert ", at net_broken.py line 3 (def build(:)." in text


@pytest.mark.parametrize("text", ["x = 1\0", "\udcff"], ids=["a zero byte", "no utf-8"])
def test_a_file_that_cannot_even_be_parsed_is_listed(
    project: Path, write: Write, text: str
) -> None:
    path = project / "net_bytes.py"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert user_code.source_closure(project, "net_bytes") == [path]
    assert refusal(project, "net_bytes:build").startswith(
        "finetune.options.entry: importing 'net_bytes' failed: got "
    )


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "def build():\n    raise SystemExit(3)"])
def test_code_that_ends_the_process_is_an_error_of_its_line(
    project: Path, write: Write, text: str
) -> None:
    write("net_exit.py", text)
    assert "got SystemExit: 3, at net_exit.py line " in refusal(project, "net_exit:build")


def test_a_module_of_a_name_that_is_taken_is_refused(project: Path, write: Write) -> None:
    own = write("torch.py", "def build(): ...\n")
    assert refusal(project, "torch:build") == (
        "finetune.options.entry: another module is called 'torch' already: got "
        f"{torch.__file__}, not {own}; a module of yours needs a name of its own. Fix: rename the "
        "file, and the name in entry."
    )


def test_a_package_that_is_missing_names_the_line_that_imports_it(
    project: Path, write: Write
) -> None:
    write("net_needs.py", "from torch import nn\nimport no_such_package\n")
    assert refusal(project, "net_needs:build") == (
        "finetune.options.entry: no module 'no_such_package': got net_needs:build, at net_needs.py "
        "line 2 (import no_such_package); modules are looked for in the project's folder and "
        "among installed packages. Fix: check the spelling, or install the package."
    )
