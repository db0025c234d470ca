"""A large image costs little memory and time, or is refused before it is decoded."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fettle.data import image_inspection
from fettle.preprocessing import WHOLE_PIXELS_MAX, Preprocess, UnreadableImage
from fettle.serving.image_request import BadRequest, from_files

MEBIBYTE = 2**20
CPU_S, PEAK_MIB = 0.5, 150
# in a process of its own: the peak of this one is somebody else's, and so is ru_maxrss of a child
MEASURED = """
import json, sys, time
from fettle.preprocessing import Preprocess

def peak_kib():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

pre = Preprocess(size_px=96, channels=3, mean=0.5, std=0.5, fit="crop")
body = open(sys.argv[1], "rb").read()
before = peak_kib()
began = time.process_time()
pre.pixels(body)
cost = time.process_time() - began
print(json.dumps([cost, (peak_kib() - before) / 1024]))
"""
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, to measure a peak")


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture with some grain, as a camera's."""
    draw = np.random.default_rng(4)
    rough = draw.integers(0, 256, (height // 40, width // 40, len(mode)), dtype=np.uint8)
    smooth = [Image.fromarray(rough[:, :, at]).resize((width, height)) for at in range(len(mode))]
    return Image.merge(mode, smooth) if len(mode) > 1 else smooth[0]


def measured(body: bytes, folder: Path) -> tuple[float, float]:
    """Return the CPU seconds and the MiB that `Preprocess.pixels` takes for it."""
    (folder / "body").write_bytes(body)
    command = [sys.executable, "-c", MEASURED, str(folder / "body")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, mebibytes = json.loads(done.stdout)
    return seconds, mebibytes


@on_linux
@pytest.mark.parametrize("progressive", [False, True])
def test_a_photo_of_12_megapixels_takes_half_a_second_and_150_mebibytes(
    tmp_path: Path, progressive: bool
) -> None:
    body = encoded(photo(4000, 3000), "JPEG", quality=90, progressive=progressive)
    seconds, mebibytes = measured(body, tmp_path)
    assert seconds < CPU_S
    assert mebibytes < PEAK_MIB
    if not progressive:  # that keeps every coefficient; else the whole raster alone is 46 MiB
        assert mebibytes < 4000 * 3000 * 4 / MEBIBYTE / 2


@on_linux
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_what_is_decoded_whole_stays_within_150_mebibytes(tmp_path: Path, mode: str) -> None:
    side = 4096
    assert side * side == WHOLE_PIXELS_MAX
    if mode == "I;16":
        image = Image.fromarray(np.full((side, side), 40_000, np.uint16))
    else:
        image = Image.new(mode, (side, side))
    body = encoded(image, "PNG")
    assert len(body) < MEBIBYTE
    assert measured(body, tmp_path)[1] < PEAK_MIB


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_a_bomb_is_refused_alike_by_ingest_and_by_serving(mode: str) -> None:
    side = 4097
    body = encoded(Image.new(mode, (side, side)), "PNG")
    assert len(body) < MEBIBYTE
    reason = (
        "too large to decode: 4097 x 4097 is above 16,777,216 pixels, the most that are taken in "
        "this format; as JPEG more are"
    )
    pre = Preprocess(size_px=8, channels=1, mean=0.5, std=0.5)
    with pytest.raises(UnreadableImage) as caught:
        pre.pixels(body)
    assert str(caught.value) == reason
    assert image_inspection.look(body).error == reason
    with pytest.raises(BadRequest) as refused:
        from_files([body], pre)
    assert (refused.value.status, str(refused.value)) == (
        400,
        f"the image cannot be read: {reason}",
    )


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_large_image_becomes_what_resizing_it_whole_makes_of_it(format_: str, fit: str) -> None:
    image = photo(2400, 1600)
    pre = Preprocess(size_px=64, channels=3, mean=0.5, std=0.5, fit=fit)  # type: ignore[arg-type]
    body = encoded(image, format_, **({"quality": 95} if format_ == "JPEG" else {}))
    whole = pre.from_image(Image.open(io.BytesIO(body)).convert("RGB"))
    gap = np.abs(pre.pixels(body).astype(int) - whole.astype(int))
    assert gap.mean() < 1.0
    assert gap.max() <= 8


def test_a_photo_taken_upright_is_turned_after_it_was_shrunk() -> None:
    image = photo(1600, 1200)
    exif = Image.Exif()
    exif[274] = 6  # turn it by 270 degrees
    pre = Preprocess(size_px=32, channels=3, mean=0.5, std=0.5)
    turned = pre.pixels(encoded(image, "JPEG", exif=exif, quality=95))
    wanted = pre.from_image(image.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(turned.astype(int) - wanted.astype(int)).mean() < 2
