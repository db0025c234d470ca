""".ci/run runs what failed once more, and its last lines say so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOUND = "def test_sound(): pass\n"
# fails at its first run only
SHAKY = """
from pathlib import Path

def test_shaky():
    mark = Path("{name}.ran")
    seen, _ = mark.exists(), mark.touch()
    assert seen
"""
BROKEN = "def test_broken(): assert False\n"
SKIPPED = "import pytest\n\n@pytest.mark.skip(reason='needs x')\ndef test_skipped(): pass\n"
HALF_SHAKY = SHAKY.format(name="half") + "\ndef test_stops():\n    raise KeyboardInterrupt\n"


FLOW = "import pytest\npytestmark = pytest.mark.flows\n"


def ci(
    tmp_path: Path,
    *,
    wheel: str = "true",
    toolchains: str = "true",
    chaos: str = "true",
    **tests: str,
) -> subprocess.CompletedProcess[str]:
    """Run .ci/run in a folder of its own tests, by a Makefile that calls pytest as ours does.

    `wheel`, `toolchains` and `chaos` are the commands of the longer steps.
    """
    flows = ".venv/bin/pytest -m flows" if "flow" in tests else "true"
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "pytest").symlink_to(Path(sys.executable).parent / "pytest")
    (tmp_path / "Makefile").write_text(
        "test:\n\t@.venv/bin/pytest\n"
        f"test-flows:\n\t@echo flows looked at; {flows}\n"
        f"test-wheel:\n\t@echo wheel looked at; {wheel}\n"
        f"test-toolchains:\n\t@echo toolchains looked at; {toolchains}\n"
        f"test-chaos:\n\t@echo chaos looked at; {chaos}\n"
    )
    ini = "[pytest]\nmarkers =\n    flows\naddopts = -m 'not flows'\n"
    (tmp_path / "pytest.ini").write_text(ini)
    for name, text in tests.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB", "MAKE"))}
    return subprocess.run(
        [tmp_path / ".ci" / "run"],
        env={**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def last_lines(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Return the last two lines; the clock's seconds are taken out."""
    *_, said, summary = done.stdout.splitlines()
    return said, re.sub(r"in [\d.]+s", "in 1s", summary)


def test_a_run_without_failures_says_that_nothing_was_repeated(tmp_path: Path) -> None:
    done = ci(tmp_path, sound=SOUND, skipped=SKIPPED)
    assert done.returncode == 0
    assert last_lines(done) == (
        "0 tests needed a second run",
        "==== 1 passed, 1 skipped, 0 rerun in 1s ====",
    )


def test_a_test_that_passed_at_its_second_run_is_named_and_counted(tmp_path: Path) -> None:
    done = ci(tmp_path, sound=SOUND, first=SHAKY.format(name="a"), other=SHAKY.format(name="b"))
    assert done.returncode == 0
    assert last_lines(done) == (
        "2 tests needed a second run: test_first.py::test_shaky, test_other.py::test_shaky",
        "==== 3 passed, 0 skipped, 2 rerun in 1s ====",
    )


def test_a_test_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    done = ci(tmp_path, sound=SOUND, first=SHAKY.format(name="a"), broken=BROKEN)
    assert done.returncode == 1
    assert last_lines(done) == (
        "2 tests needed a second run: test_broken.py::test_broken, test_first.py::test_shaky",
        "==== 1 failed, 2 passed, 0 skipped, 2 rerun in 1s ====",
    )


@pytest.mark.parametrize("tests", [{"half": HALF_SHAKY, "sound": SOUND}, {}], ids=["cut", "none"])
def test_a_run_that_did_not_see_every_test_is_never_green(
    tmp_path: Path, tests: dict[str, str]
) -> None:
    done = ci(tmp_path, **tests)
    assert done.returncode != 0
    assert "second run" not in done.stdout


def test_the_longer_steps_run_after_the_tests_even_after_one_that_failed(tmp_path: Path) -> None:
    done = ci(tmp_path, broken=BROKEN)
    assert done.returncode == 1
    looked = [f"{step} looked at" for step in ("flows", "wheel", "toolchains", "chaos")]
    order = [done.stdout.index(word) for word in ("1 failed", *looked)]
    assert order == sorted(order)


def test_a_flow_that_passed_at_its_second_run_is_counted_with_the_tests(tmp_path: Path) -> None:
    done = ci(
        tmp_path, sound=SOUND, first=SHAKY.format(name="a"), flow=FLOW + SHAKY.format(name="f")
    )
    assert done.returncode == 0
    assert last_lines(done) == (
        "2 tests needed a second run: test_first.py::test_shaky, test_flow.py::test_shaky",
        "==== 3 passed, 0 skipped, 2 rerun in 1s ====",
    )


def test_a_flow_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    done = ci(tmp_path, sound=SOUND, flow=FLOW + BROKEN)
    assert done.returncode == 1
    assert last_lines(done) == (
        "1 test needed a second run: test_flow.py::test_broken",
        "==== 1 failed, 1 passed, 0 skipped, 1 rerun in 1s ====",
    )


def test_a_run_that_did_not_see_every_flow_is_never_green(tmp_path: Path) -> None:
    done = ci(tmp_path, sound=SOUND, flow=FLOW + HALF_SHAKY)
    assert done.returncode != 0
    assert "second run" not in done.stdout


@pytest.mark.parametrize("step", ["wheel", "toolchains", "chaos"])
def test_a_longer_step_that_fails_fails_the_run_and_is_named(tmp_path: Path, step: str) -> None:
    failing = {"wheel": "true", "toolchains": "true", "chaos": "true", step: "false"}
    done = ci(tmp_path, sound=SOUND, **failing)
    assert done.returncode != 0
    assert f"make test-{step} failed" in done.stdout.splitlines()
    assert "chaos looked at" in done.stdout  # a failed step does not hide the next
    assert last_lines(done) == (
        "0 tests needed a second run",
        "==== 1 passed, 0 skipped, 0 rerun in 1s ====",
    )


def test_a_longer_step_that_passed_at_its_second_run_is_named(tmp_path: Path) -> None:
    once = "test -e ran || { touch ran; false; }"
    done = ci(tmp_path, sound=SOUND, chaos=once)
    assert done.returncode == 0, done.stdout
    assert "make test-chaos needed a second run" in done.stdout.splitlines()
    assert "make test-chaos failed" not in done.stdout


def test_every_step_is_a_target_of_our_makefile_and_ci_runs_the_script() -> None:
    steps = re.findall(r"^for step in (.+); do$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert steps == ["test test-flows", "test-wheel test-toolchains test-chaos"]
    makefile = (ROOT / "Makefile").read_text()
    for step in " ".join(steps).split():
        assert re.search(rf"^{step}: setup ", makefile, re.M)
    assert "- run: .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
