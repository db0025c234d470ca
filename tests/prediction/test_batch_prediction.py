from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_release import TinyRelease

from fettle.errors import BusyError, DataError, TamperedError, TransientError, UserError
from fettle.prediction import batch_prediction, prediction_inputs, worker_process
from fettle.prediction.batch_prediction import PredictionTotals
from fettle.serving import image_request, release_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = TinyRelease(tmp_path_factory.mktemp("released"))
    made.package()
    return made.release


def encoded(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, size=(20 + seed % 5, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index:04d}.png").write_bytes(encoded(index))
    return folder


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def predict(place: Path, release: Path, out: Path, workers: int = 1) -> PredictionTotals:
    return batch_prediction.predict([place], release, out, workers=workers)


def test_the_answers_are_the_server_s_in_the_order_of_the_folder(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_prediction, "CHUNK_IMAGES", 4)
    folder = photos(tmp_path / "photos", 13)
    predict(folder, release, tmp_path / "one.jsonl")
    predict(folder, release, tmp_path / "two.jsonl", workers=2)

    bundle = release_bundle.load(release)
    rows = lines(tmp_path / "one.jsonl")
    assert [row["row"] for row in rows] == [f"{index:04d}.png" for index in range(13)]
    for index, row in enumerate(rows):
        pixels = image_request.from_files([encoded(index)], bundle.preprocess)
        best = bundle.rank(pixels, most=5)[0]
        assert [entry["label"] for entry in row["top"]] == [  # type: ignore[attr-defined]  # a list
            bundle.labels[at] for at in best.classes
        ]
        assert [entry["probability"] for entry in row["top"]] == pytest.approx(  # type: ignore[attr-defined]  # a list
            best.probabilities, abs=2e-6
        )
        assert row["label"] == bundle.labels[best.classes[0]]
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_the_release_answers_with_its_own_preprocessing_not_the_installed_one(
    tmp_path: Path, release: Path
) -> None:
    import shutil

    from fettle import manifest

    changed = tmp_path / "changed"
    shutil.copytree(release, changed)
    code = changed / "fettle" / "serving" / "image_request.py"
    code.write_text(code.read_text().replace('"the image"', '"this picture"'))
    stated = json.loads((changed / "release.json").read_text())
    stated["files"]["fettle/serving/image_request.py"] = manifest.sha256_file(code)
    manifest.write_json(changed / "release.json", stated)
    (tmp_path / "broken.png").write_bytes(b"no image")

    predict(tmp_path / "broken.png", changed, tmp_path / "out.jsonl")

    assert str(lines(tmp_path / "out.jsonl")[0]["error"]).startswith("this picture cannot be read:")
    assert not list(changed.rglob("__pycache__"))


def test_an_image_that_cannot_be_read_gets_a_row_with_the_reason(
    tmp_path: Path, release: Path
) -> None:
    folder = photos(tmp_path / "photos", 3)
    (folder / "0001.png").write_bytes(b"no image")
    (folder / "0002.png").unlink()
    (folder / "0002.png").symlink_to(tmp_path / "gone.png")

    totals = predict(folder, release, tmp_path / "out.csv")

    with (tmp_path / "out.csv").open(newline="") as handle:
        good, broken, gone = csv.DictReader(handle)
    assert totals.failed == 2
    assert good["error"] == ""
    assert json.loads(good["top"])[0]["label"] == good["label"]
    assert broken["error"].startswith("the image cannot be read: ")
    assert broken["label"] == broken["probability"] == ""
    assert gone["error"] == "the file cannot be read: No such file or directory"


@pytest.mark.parametrize("form", ["bytes", "image", "path", "csv"])
def test_a_table_gives_its_images_in_its_own_order(
    form: str, tmp_path: Path, release: Path
) -> None:
    folder = photos(tmp_path / "photos", 3)
    names = ["0002.png", "0000.png", "0001.png"]
    data = [(folder / name).read_bytes() for name in names]
    place = folder / "table.parquet"
    if form == "csv":
        place = folder / "table.csv"
        place.write_text("path,label\n" + "".join(f"{name},x\n" for name in names))
    elif form == "bytes":
        pq.write_table(pa.table({"row": names, "bytes": data}), place)
    elif form == "image":
        cells = [{"bytes": d, "path": n} for d, n in zip(data, names, strict=True)]
        pq.write_table(pa.table({"image": cells}), place)
    else:
        pq.write_table(pa.table({"path": names}), place)
    predict(folder, release, tmp_path / "folder.parquet")

    predict(place, release, tmp_path / "table.parquet")

    of_folder = pq.read_table(tmp_path / "folder.parquet").to_pylist()
    of_table = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["row"] for row in of_table] == names
    assert of_table == [of_folder[2], of_folder[0], of_folder[1]]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, release: Path) -> None:
    folder = photos(tmp_path / "photos", 60)
    out = tmp_path / "out.jsonl"
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fettle.prediction import batch_prediction as batch\n"
        "batch.CHUNK_IMAGES = 10\n"
        "folder, release, out = map(Path, sys.argv[1:])\n"
        "batch.predict([folder], release, out, workers=2, progress=lambda _: time.sleep(0.5))\n"
    )
    command = [sys.executable, "-c", script, str(folder), str(release), str(out)]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("out.jsonl.part/0*.jsonl"))) < 2:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not out.exists()
    finished = len(list(tmp_path.glob("out.jsonl.part/0*.jsonl")))
    assert 2 <= finished < 6

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_prediction, "CHUNK_IMAGES", 10)
        totals = predict(folder, release, out)

    predict(folder, release, tmp_path / "whole.jsonl")
    assert (totals.images, totals.resumed) == (60, 10 * finished)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "out.jsonl.part").exists()


def interrupted(folder: Path, release: Path, out: Path) -> None:
    """Finish all chunks and stop before the table."""

    def stop(_: PredictionTotals) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        batch_prediction.predict([folder], release, out, workers=1, progress=stop)


def test_an_image_that_changed_since_is_answered_anew(tmp_path: Path, release: Path) -> None:
    folder = photos(tmp_path / "photos", 2)
    interrupted(folder, release, tmp_path / "out.jsonl")
    kept = (folder / "0000.png").stat()
    (folder / "0000.png").write_bytes(encoded(7))
    os.utime(folder / "0000.png", ns=(kept.st_atime_ns, kept.st_mtime_ns))

    assert predict(folder, release, tmp_path / "out.jsonl").resumed == 0
    predict(folder, release, tmp_path / "fresh.jsonl")
    assert lines(tmp_path / "out.jsonl") == lines(tmp_path / "fresh.jsonl")


def test_a_chunk_that_the_power_cut_short_is_answered_anew(tmp_path: Path, release: Path) -> None:
    folder = photos(tmp_path / "photos", 3)
    interrupted(folder, release, tmp_path / "out.jsonl")
    (chunk,) = tmp_path.glob("out.jsonl.part/0*.jsonl")
    chunk.write_bytes(chunk.read_bytes()[:-20])

    assert predict(folder, release, tmp_path / "out.jsonl").resumed == 0
    assert len(lines(tmp_path / "out.jsonl")) == 3


def test_a_worker_that_dies_is_told_and_what_it_finished_stays(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying.py"
    dying.write_text("import sys\nsys.exit('out of memory')\n")
    monkeypatch.setattr(worker_process, "WORKER", dying)
    folder = photos(tmp_path / "photos", 2)

    with pytest.raises(TransientError) as caught:
        predict(folder, release, tmp_path / "out.jsonl", workers=2)

    assert "a worker of `fettle predict` died: got exit code 1; it said: out of memory" in str(
        caught.value
    )
    assert "run the same command again" in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_memory_holds_one_chunk_whatever_the_images_weigh() -> None:
    half = prediction_inputs.InputImage("x", bytes(batch_prediction.CHUNK_BYTES // 2))
    sizes = [len(chunk) for chunk in batch_prediction.chunked(iter([half] * 5))]
    assert sizes == [2, 2, 1]


def test_a_changed_release_is_refused_before_its_code_runs(tmp_path: Path, release: Path) -> None:
    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(release, changed)
    (changed / "fettle" / "preprocessing.py").write_text("raise SystemExit")
    with pytest.raises(TamperedError, match=r"fettle/preprocessing\.py of the release is changed"):
        predict(photos(tmp_path / "photos", 1), changed, tmp_path / "out.jsonl")


def test_two_runs_do_not_write_one_table(tmp_path: Path, release: Path) -> None:
    import fcntl

    folder = photos(tmp_path / "photos", 1)
    (tmp_path / "out.jsonl.part").mkdir()
    with (tmp_path / "out.jsonl.part" / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another `fettle predict` writes"):
            predict(folder, release, tmp_path / "out.jsonl")


def refusal(place: Path, out: Path) -> str:
    with pytest.raises(UserError) as caught:
        batch_prediction.predict([place], Path("no release"), out, workers=1)
    assert not list(out.parent.glob("*.part"))
    return str(caught.value)


def test_each_wrong_input_is_refused_by_name_before_the_release_is_loaded(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    empty = tmp_path / "empty"
    empty.mkdir()
    pixels = tmp_path / "pixels.parquet"
    pq.write_table(pa.table({"image": [[1, 2], [3, 4]]}), pixels)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"photo": [b"x"]}), other)
    none = tmp_path / "none.csv"
    none.write_text("path\n")
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1")

    assert "there is no image, folder or table at" in refusal(tmp_path / "gone", out)
    assert "has no images: got no file ending in .bmp" in refusal(empty, out)
    assert "the column image holds no images: got values of type list" in refusal(pixels, out)
    assert "names no images: got the columns photo; one of them is bytes" in refusal(other, out)
    assert "none.csv has no rows" in refusal(none, out)
    assert "torn.parquet is no parquet table" in refusal(torn, out)
    assert "got 'out.txt'; its name ends in .parquet, .csv, .jsonl" in refusal(
        empty, tmp_path / "out.txt"
    )
    assert "no folder" in refusal(empty, tmp_path / "gone" / "out.csv")
    assert "would replace their own input" in refusal(none, none)


def test_a_table_that_breaks_off_in_the_middle_is_a_data_error(
    tmp_path: Path, release: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(b"path\n" + b"a.png\n" * 9000 + b"\xff\n")
    with pytest.raises(DataError, match=r"table\.csv breaks off: got .*utf-8"):
        predict(table, release, tmp_path / "out.jsonl")
