from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from fettle.errors import ProjectError
from fettle.release import locked_requirements


def lock(folder: Path, text: str) -> Path:
    path = folder / "requirements.lock"
    path.write_text(text)
    return path


def test_a_module_is_named_by_the_package_that_brings_it() -> None:
    assert locked_requirements.of_modules(["PIL", "jinja2", "yaml"]) == [
        "jinja2",
        "pillow",
        "pyyaml",
    ]


def test_a_module_that_no_package_brings_is_refused() -> None:
    with pytest.raises(ProjectError) as caught:
        locked_requirements.of_modules(["no_such_module"])
    assert str(caught.value) == (
        "no installed package provides the module no_such_module; a release names every package "
        "that its sources import. Fix: install it (`make setup`), or take the import out of the "
        "service."
    )


def test_the_closure_holds_what_a_package_requires() -> None:
    found = locked_requirements.closure(["Jinja2"], None)
    assert [one.name for one in found] == ["jinja2", "markupsafe"]
    assert found[0].version == metadata.version("jinja2")
    assert found[0].requires == ("markupsafe",)
    assert found[1].requires == ()
    assert locked_requirements.text(found) == (
        f"jinja2=={metadata.version('jinja2')}\nmarkupsafe=={metadata.version('markupsafe')}\n"
    )


def test_an_extra_that_nobody_asks_for_is_left_out() -> None:
    assert "babel" not in [one.name for one in locked_requirements.closure(["jinja2"], None)]


def test_a_package_that_is_missing_is_refused() -> None:
    with pytest.raises(ProjectError) as caught:
        locked_requirements.closure(["no-such-package"], None)
    assert str(caught.value) == (
        "the package no-such-package is required by a release's service but not installed. "
        "Fix: run `make setup`."
    )


def test_a_version_that_is_not_the_locks_is_refused(tmp_path: Path) -> None:
    wrong = lock(tmp_path, "jinja2==0.1\n")
    with pytest.raises(ProjectError) as caught:
        locked_requirements.closure(["jinja2"], wrong)
    assert str(caught.value) == (
        f"the installed jinja2 is not the locked one: got {metadata.version('jinja2')}; "
        "requirements.lock says 0.1, and a release states what it was measured with. "
        "Fix: run `make setup`."
    )


def test_a_lock_that_agrees_is_followed(tmp_path: Path) -> None:
    right = lock(tmp_path, f"MarkupSafe=={metadata.version('markupsafe')}\n")
    assert len(locked_requirements.closure(["jinja2"], right)) == 2


def test_a_lock_is_read_for_this_machine(tmp_path: Path) -> None:
    text = (
        "# made by a tool\n--extra-index-url https://example.org\n\n"
        "Some_Package==1.2 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"
        "plain==2.0  # via this\n"
        "elsewhere==3.0 ; sys_platform == 'no-such-platform'\n"
        "here==4.0 ; python_version >= '3.11'\n"
    )
    assert locked_requirements.read_lock(lock(tmp_path, text)) == {
        "some-package": "1.2",
        "plain": "2.0",
        "here": "4.0",
    }


def test_a_line_that_is_no_requirement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        locked_requirements.read_lock(lock(tmp_path, "this is none\n"))
    assert str(caught.value) == (
        "requirements.lock has a line that is no requirement: got this is none."
    )
