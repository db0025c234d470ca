"""The browser page for real: a photo chosen in headless Chromium is classified as in Python."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import headless_browser
import numpy as np
import pytest
import tiny_onnx
from PIL import Image

from fettle.hardware.isolated import toolchain, toolchain_environment
from fettle.hardware.runtimes import ort, ort_web
from fettle.preprocessing import Fit, Preprocess

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(headless_browser.CHROMIUM is None, reason="needs chromium"),
]
LABELS = ["left", "middle", "right"]


def release(folder: Path, pre: Preprocess) -> Path:
    """Make a release's folder as far as the page reads it; return the page's target folder."""
    toolchain_environment.install(ort_web.TOOLCHAIN, say=sys.stderr.write)
    place = folder / "targets" / "browser_ort_web_fp32"
    place.mkdir(parents=True)
    model = tiny_onnx.classifier(folder / "given.onnx", channels=pre.channels)
    ort_web.compile(model, place)
    (folder / "preprocess.json").write_text(json.dumps(pre.to_dict()))
    (folder / "labels.json").write_text(json.dumps(LABELS))
    return place


def photo(path: Path, *, size: tuple[int, int]) -> bytes:
    rng = np.random.default_rng(4)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("channels", "fit", "size"),
    [(1, "stretch", (37, 50)), (3, "crop", (40, 64)), (1, "pad", (21, 9)), (3, "stretch", (5, 8))],
)
def test_a_photo_that_a_user_chooses_is_classified_as_in_python(
    tmp_path: Path, channels: int, fit: Fit, size: tuple[int, int]
) -> None:
    pre = Preprocess(size_px=8, channels=channels, mean=0.5, std=0.5, fit=fit)
    place = release(tmp_path, pre)
    encoded = photo(tmp_path / "photo.png", size=size)
    logits = ort.open(place / "model.onnx", threads=1).run(pre.normalise(pre.batch([encoded])))[0]
    powers = np.exp(logits - logits.max())
    wanted = dict(zip(LABELS, powers / powers.sum(), strict=True))
    with (
        headless_browser.served(tmp_path) as address,
        headless_browser.opened(
            f"{address}/targets/browser_ort_web_fp32/index.html", tmp_path / "profile"
        ) as page,
    ):
        page.wait_for("document.getElementById('said').textContent === 'Choose a photo.'")
        page.choose("#photo", tmp_path / "photo.png")
        page.wait_for("document.querySelectorAll('#answers tr').length")
        rows = page.value(
            "Array.from(document.querySelectorAll('#answers tr'), row => "
            "[row.cells[0].textContent, Number(row.cells[1].dataset.share)])"
        )
        said = page.value("document.getElementById('said').textContent")
    found = dict(rows)
    assert [label for label, _ in rows] == sorted(LABELS, key=lambda label: -wanted[label])
    # a pixel may be rounded the other way: a step of 1/255 in a few of 64 places
    assert found == pytest.approx(wanted, abs=0.01)
    assert said.startswith("It took ")
    assert said.endswith(" ms in this browser.")


def test_a_file_that_is_no_photo_is_said_so_and_the_page_goes_on(tmp_path: Path) -> None:
    release(tmp_path, Preprocess(size_px=8, channels=1, mean=0.5, std=0.5))
    (tmp_path / "notes.png").write_bytes(b"no image")
    photo(tmp_path / "photo.png", size=(8, 8))
    with (
        headless_browser.served(tmp_path) as address,
        headless_browser.opened(
            f"{address}/targets/browser_ort_web_fp32/index.html", tmp_path / "profile"
        ) as page,
    ):
        page.wait_for("document.getElementById('said').textContent === 'Choose a photo.'")
        page.choose("#photo", tmp_path / "notes.png")
        page.wait_for("document.getElementById('said').textContent.startsWith('This file cannot')")
        page.choose("#photo", tmp_path / "photo.png")
        page.wait_for("document.querySelectorAll('#answers tr').length === 3")


def test_the_page_s_resizing_is_pillow_s_to_one_step(tmp_path: Path) -> None:
    """Run by Node.js alone: 40 sizes, each fit, both numbers of channels."""
    rng = np.random.default_rng(0)
    script = tmp_path / "run.mjs"
    code = toolchain.HERE / "web" / "resize.mjs"
    cases, wanted = [], []
    fits: tuple[Fit, ...] = ("stretch", "crop", "pad")
    for index in range(40):
        width, height = rng.integers(1, 70, 2)
        pre = Preprocess(
            size_px=int(rng.integers(8, 33)), channels=1 + 2 * (index % 2), mean=0.5, std=0.25,
            fit=fits[index % 3],
        )  # fmt: skip
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        held = io.BytesIO()
        image.save(held, "PNG")
        wanted.append(pre.normalise(pre.batch([held.getvalue()])).ravel())
        rgba = np.asarray(image.convert("RGBA")).ravel().tolist()
        cases.append(
            {"rgba": rgba, "width": int(width), "height": int(height), "pre": pre.to_dict()}
        )
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    script.write_text(
        f"import fs from 'node:fs'; import {{ modelInput }} from '{code.as_uri()}';\n"
        f"const cases = JSON.parse(fs.readFileSync('{tmp_path}/cases.json'));\n"
        "console.log(JSON.stringify(cases.map(c => Array.from(modelInput("
        "Uint8ClampedArray.from(c.rgba), c.width, c.height, c.pre)))));\n"
    )
    done = subprocess.run(["node", str(script)], capture_output=True, text=True, check=True)
    step = 1 / (255 * 0.25)
    off = [np.abs(np.array(a) - b) for a, b in zip(json.loads(done.stdout), wanted, strict=True)]
    assert max(one.max() for one in off) < 1.5 * step
    assert np.mean(np.concatenate(off) > 0.5 * step) < 0.15  # which pass Pillow takes first varies
