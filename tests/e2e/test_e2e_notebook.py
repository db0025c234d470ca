"""The notebook of examples/ runs from its first cell to its last, as a newcomer runs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from box import Box

pytestmark = pytest.mark.flows  # a whole run in it: about a minute
NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "python_api.ipynb"
# The code cells in order in one namespace, as Jupyter runs them; then what they left.
RUN = """
import json, sys
names = {}
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
made, judged = names["made"], names["judged"]
print(json.dumps([made.passed, judged.n, judged.accuracy.value, str(made.project)]))
"""


def test_it_has_ten_cells_and_none_was_run_before_it_was_saved() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert len(cells) == 10
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code"] == [[]] * 5


def test_its_cells_end_with_a_release_that_answers(tmp_path: Path) -> None:
    box = Box(tmp_path, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK)],
        cwd=tmp_path,
        env=box.environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    *printed, last = done.stdout.splitlines()
    passed, n, accuracy, project = json.loads(last)
    assert passed is True
    assert n == 897
    assert accuracy > 0.9
    assert float(re.findall(r"params_ratio ([\d.]+)", "\n".join(printed))[0]) > 2
    answers = [line.split() for line in printed[-5:]]
    assert sum(label == answered for label, answered, _ in answers) >= 3
    assert (Path(project) / "report" / "index.html").is_file()
    assert "finetune" in done.stderr  # the run's progress is seen while it runs
    servers = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert project not in servers.stdout, "a server was left behind"
    shutil.rmtree(project)
