"""What a toolchain does wrong in its worker: told in one paragraph, nothing left running."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from fettle.errors import ModelError
from fettle.hardware.isolated.isolated_worker import Worker, ask, resident_bytes
from fettle.hardware.isolated.toolchain import Limits

PYTHON = Path(sys.executable)
FAKE = Path(__file__).resolve().parents[2] / "support" / "fake_toolchain.py"
MB = 1_000_000
FIX = "Fix: drop its targets for this model (params.yaml: targets), or change what the lines name."


def start(*, seconds: float = 60, memory_bytes: int = 4000 * MB, **more: Path) -> Worker:
    limits = Limits(seconds=seconds, memory_bytes=memory_bytes)
    return Worker("Fake", PYTHON, FAKE, limits=limits, **more)


def failure(worker: Worker, call: str, **words: object) -> str:
    with worker, pytest.raises(ModelError) as caught:
        worker.ask(call, words)
    assert is_gone(worker.pid)
    return str(caught.value)


def is_gone(pid: int, *, seconds: float = 10) -> bool:
    """Tell whether a process ends soon; one that is dead and not reaped yet counts as gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_worker_answers_call_after_call() -> None:
    with start() as worker:
        assert worker.ask("echo", {"count": 1, "name": "ß"}) == {"count": 1, "name": "ß"}
        assert worker.ask("echo", {}) == {}


def test_a_single_call_starts_and_ends_a_worker() -> None:
    assert ask("Fake", PYTHON, FAKE, "echo", {"count": 1}) == {"count": 1}


def test_a_worker_sees_nothing_of_this_processes_packages_and_pins_its_threads() -> None:
    with Worker("Fake", PYTHON, FAKE, threads=3) as worker:
        about = worker.ask("about")
    assert about["loaded"] == []
    assert (about["PYTHONPATH"], about["OMP_NUM_THREADS"]) == (None, "3")
    assert about["TMPDIR"] == about["cwd"] != str(Path.cwd())


def test_a_temporary_folder_that_toolchains_break_on_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a b"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with start() as worker:
        folder = worker.ask("about")["cwd"]
    assert re.fullmatch(r"/(var/)?tmp/fettle-worker-\w+", folder)
    assert list(odd.iterdir()) == []


def test_its_working_folder_goes_with_it() -> None:
    with start() as worker:
        folder = Path(worker.ask("about")["cwd"])
        assert folder.is_dir()
    assert not folder.exists()


def test_what_a_library_prints_is_no_answer() -> None:
    with start() as worker:
        assert worker.ask("noisy") == {"done": True}


def test_an_error_in_the_script_is_told_and_the_worker_goes_on() -> None:
    with start() as worker:
        with pytest.raises(ModelError) as caught:
            worker.ask("refuse")
        text = str(caught.value)
        assert text == (
            "Fake could not refuse the model: got ValueError: the operator Foo is not known; "
            f"one call may take 60 s and 3.73 GiB. {FIX}"
        )
        assert worker.ask("echo", {"count": 2}) == {"count": 2}


def test_a_script_that_leaves_by_python_s_exit_is_told() -> None:
    with start() as worker, pytest.raises(ModelError, match="got SystemExit: 3"):
        worker.ask("leave", {"code": 3})


def test_a_crash_is_named_with_the_last_lines_of_stderr() -> None:
    assert failure(start(), "crash").startswith(
        "Fake could not crash the model: got it was ended by SIGSEGV; its last lines: loading the "
        "tables / assertion failed: reuse_factor <= 9; one call may take "
    )


@pytest.mark.parametrize("code", [0, 7])
def test_an_end_without_an_answer_is_told_whatever_the_exit_code(code: int) -> None:
    text = failure(start(), "leave_at_once", code=code)
    assert f"got it ended with exit code {code} and no answer; one call may take" in text


@pytest.mark.parametrize("call", ["hang", "hold_the_interpreter"])
def test_a_call_that_takes_too_long_is_ended(call: str) -> None:
    with start(seconds=1) as worker:
        worker.ask("echo")  # started, so that the second counts the call alone
        began = time.monotonic()
        text = failure(worker, call)
    assert 1 <= time.monotonic() - began < 10
    assert text.startswith(f"Fake could not {call} the model: got no answer in 1 s")
    if call == "hang":
        assert "its last lines: placing and routing; one call may take 1 s and" in text


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
@pytest.mark.parametrize("call", ["hoard", "child_hoards"])
def test_a_call_that_takes_too_much_memory_is_ended_its_children_s_counted(call: str) -> None:
    text = failure(start(memory_bytes=300 * MB), call, megabytes=500)
    assert text.startswith(f"Fake could not {call} the model: got 0.")
    assert " GiB of memory in use" in text
    assert "one call may take 60 s and 0.279 GiB" in text


def test_a_flood_on_stderr_stops_nothing_and_only_its_end_is_kept() -> None:
    with start() as worker:
        assert worker.ask("flood", {"megabytes": 20}) == {"written": 20}
        with pytest.raises(ModelError, match="ValueError: the operator Foo") as caught:
            worker.ask("refuse")
    assert "its last lines: " in str(caught.value)
    assert " / the last line; one call may take " in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("'Segmentation fault\\n'", "an answer that is no JSON object: b'Segmentation fault\\n'"),
        ("'[1, 2]\\n'", "an answer that is no JSON object: b'[1, 2]\\n'"),
        ("'{}\\n'", "an answer that is no JSON object: b'{}\\n'"),
        ("'7\\n'", "an answer that is no JSON object: b'7\\n'"),
        ('\'{"answer": {}}\\n{"answer": {}}\\n\'', 'an answer out of turn: b\'{"answer": {}}'),
        ("'x' * 3_000_000", "an answer out of turn: b'xxxxx"),
        ("'no end of line'", "it ended with exit code 0 and no answer"),
        ("''", "it ended with exit code 0 and no answer"),
    ],
)
def test_what_is_no_answer_is_shown(tmp_path: Path, answer: str, told: str) -> None:
    other = tmp_path / "harness.py"
    other.write_text(f"import sys\nsys.stdin.readline()\nsys.stdout.write({answer})\n")
    before = set(Path(tempfile.gettempdir()).iterdir())
    text = failure(start(harness=other), "echo")
    assert f"got {told}" in text
    assert set(Path(tempfile.gettempdir()).iterdir()) <= before


def test_a_worker_that_has_ended_says_why_again() -> None:
    with start() as worker:
        for _ in range(2):
            with pytest.raises(ModelError, match="it was ended by SIGSEGV"):
                worker.ask("crash")
        with pytest.raises(ModelError) as caught:
            worker.run(np.zeros((1, 1, 8, 8), np.float32))
    assert "got a worker that has ended (it was ended by SIGSEGV)" in str(caught.value)


def test_a_script_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there\n")
    told = "ModuleNotFoundError: No module named 'a_package_"
    worker = Worker("Fake", PYTHON, tmp_path / "broken.py")
    with worker, pytest.raises(ModelError, match=told):
        worker.ask("echo")


def test_closing_ends_the_whole_group() -> None:
    with start() as worker:
        pids = worker.ask("spawn")
    assert is_gone(pids["worker"])
    assert is_gone(pids["child"])


def test_a_time_out_ends_the_whole_group() -> None:
    with start(seconds=1) as worker:
        child = worker.ask("spawn")["child"]
        failure(worker, "hang")
    assert is_gone(child)


OWNER = """
import sys, threading
from pathlib import Path
from fettle.hardware.isolated.isolated_worker import Worker
worker = Worker("Fake", Path(sys.executable), Path(sys.argv[1]))
about = worker.ask("about")
pids = worker.ask("spawn")
print(pids["worker"], pids["child"], about["cwd"], flush=True)
worker.ask(sys.argv[2])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("busy_with", ["hang", "hold_the_interpreter"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_owners_death_ends_the_whole_group(busy_with: str, end: signal.Signals) -> None:
    code = textwrap.dedent(OWNER)
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(FAKE), busy_with], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner:
        worker, child, folder = owner.stdout.readline().split()
        time.sleep(0.2)
        assert not is_gone(int(child), seconds=0.1)
        owner.send_signal(end)
        owner.wait()
        assert is_gone(int(worker))
        assert is_gone(int(child))
    deadline = time.monotonic() + 10
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(folder).exists()


def test_a_fork_of_the_owner_that_drops_the_worker_leaves_it_as_it_is() -> None:
    code = (
        "import os, sys; from pathlib import Path; "
        "from fettle.hardware.isolated.isolated_worker import Worker\n"
        "worker = Worker('Fake', Path(sys.executable), Path(sys.argv[1])); worker.ask('echo')\n"
        "if os.fork() == 0:\n    worker.close()\n    os._exit(0)\n"
        "os.wait(); print(worker.ask('echo', {'still': 'here'}))"
    )
    command = [sys.executable, "-c", code, str(FAKE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "{'still': 'here'}\n"


def test_a_worker_that_nobody_holds_ends() -> None:
    worker = start()
    pid = worker.ask("spawn")["worker"]
    del worker
    assert is_gone(pid)


def test_the_memory_of_a_process_that_is_gone_is_nothing() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert resident_bytes(done.pid) == 0
