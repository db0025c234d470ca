from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from fettle.errors import ModelError
from fettle.models import export_onnx


class Net(nn.Module):
    """A convolution with its BatchNorm in a Sequential, one outside, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.chain = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.conv, self.norm = nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        for norm in (self.chain[1], self.norm):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv(self.chain(x))))
        return self.head(y.mean(dim=(2, 3)))


class Branching(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0:  # the branch that the error must name
            x = x * 2
        return super().forward(x)


class FixedBatch(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(2, 1, 8, 8))


class NoTranslation(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.special.bessel_j0(x))


class TwoAnswers(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return (y, y)  # type: ignore[return-value]  # the mistake under test


def lowered(model: nn.Module, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    export_onnx.export(model, channels=1, size_px=8, out=path)
    return path


def batch(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(Net(), tmp_path_factory.mktemp("lower"))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_file_answers_like_the_module_at_any_batch(path: Path, count: int) -> None:
    with torch.no_grad():
        reference = Net().eval()(torch.from_numpy(batch(count))).numpy()
    found = export_onnx.parity(path, batch(count), reference)
    assert found.relative < 1e-5
    assert found.top1 == 1.0
    assert found.cosine > 0.999999


def test_the_file_has_the_house_names_and_a_free_batch(path: Path) -> None:
    graph = onnx.load(path).graph
    names = [(one.name, one.type.tensor_type.shape) for one in (*graph.input, *graph.output)]
    assert [name for name, _ in names] == ["input", "logits"]
    assert [[d.dim_param or d.dim_value for d in shape.dim] for _, shape in names] == [
        ["batch", 1, 8, 8],
        ["batch", 4],
    ]


def test_no_batchnorm_is_left(path: Path) -> None:
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Conv") == 2
    assert "BatchNormalization" not in kinds


def test_the_file_names_no_source_and_no_machine(path: Path) -> None:
    content = path.read_bytes()
    for trace in (
        b'File "',
        b".py",
        str(Path.home()).encode(),
        str(Path(__file__).parent.parent).encode(),
    ):
        assert trace not in content
    assert list(path.parent.iterdir()) == [path], "no data file beside it"


def test_the_same_model_gives_the_same_bytes_in_another_process(path: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nimport test_export_onnx\n"
        f"test_export_onnx.lowered(test_export_onnx.Net(), Path({str(tmp_path)!r}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    digests = [
        hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, tmp_path / "model.onnx")
    ]
    assert digests[0] == digests[1]


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = Net().train().to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lowered(model, tmp_path)
    after = model.state_dict()
    assert model.training
    assert isinstance(model.chain[1], nn.BatchNorm2d)
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_memory_layout_changes_no_byte(path: Path, tmp_path: Path) -> None:
    other = lowered(Net().to(memory_format=torch.channels_last), tmp_path)
    assert other.read_bytes() == path.read_bytes()


def test_a_branch_on_data_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        lowered(Branching(), tmp_path)
    text = str(caught.value)
    line = next(
        index
        for index, code in enumerate(Path(__file__).read_text().splitlines(), start=1)
        if "the branch that the error must name" in code
    )
    assert text.startswith(
        f"the model cannot be exported, at test_export_onnx.py line {line} (if x.mean() > 0:"
    )
    assert text.endswith(
        "forward may not branch on the values it sees, nor fix the batch size. Fix: replace the "
        "branch by tensor operations (torch.where, masks), take the batch size from x.shape[0] "
        "and not from len(x), or export the model yourself and use the family onnx_file."
    )
    assert not (tmp_path / "model.onnx").exists()


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^the model cannot be exported.*nor fix the batch size"):
        lowered(FixedBatch(), tmp_path)


def test_an_operator_without_translation_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        lowered(NoTranslation(), tmp_path)
    text = str(caught.value)
    assert text.startswith(
        "the model cannot be written as ONNX: 'prims.bessel_j0' has no translation, at "
        "test_export_onnx.py line "
    )
    assert "(return super().forward(torch.special.bessel_j0(x))): got No ONNX function" in text
    assert text.endswith(
        "every operator of forward needs an ONNX counterpart. Fix: write that step with other "
        "torch operators."
    )


def test_an_answer_that_is_no_tensor_of_logits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        lowered(TwoAnswers(), tmp_path)
    assert str(caught.value) == (
        "the model's forward does not return logits: got tuple for an input of [2, 1, 8, 8]; it "
        "returns one float tensor [batch, classes]. Fix: flatten or select the tensor inside "
        "forward."
    )


def test_parity_is_the_worst_row_and_the_largest_difference() -> None:
    reference = np.array([[4.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    logits = np.array([[4.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    found = export_onnx.compare_logits(logits, reference)
    assert found.to_dict() == {"cosine": 0.0, "max_abs": 2.0, "relative": 0.5, "top1": 0.5}


def test_parity_beyond_the_tolerance_is_refused_with_the_numbers() -> None:
    found = export_onnx.Parity(cosine=0.95, max_abs=0.5, relative=0.02, top1=0.9)
    with pytest.raises(ModelError) as caught:
        export_onnx.check_parity(found, what="model.onnx")
    assert str(caught.value) == (
        "model.onnx does not answer as the model it was made from: got max_abs 0.5 (0.02 of the "
        "largest logit), cosine 0.950000, top1 0.900; the largest difference may be 0.001 of the "
        "largest logit. Fix: look in the model for operators that behave otherwise in eval mode "
        "or in ONNX."
    )
    export_onnx.check_parity(found, what="model.onnx", tolerance=0.02)


def test_parity_that_is_no_number_is_refused() -> None:
    rows = np.full((2, 2), np.nan, dtype=np.float32)
    with pytest.raises(ModelError, match="max_abs nan"):
        export_onnx.check_parity(
            export_onnx.compare_logits(rows, np.ones_like(rows)), what="model.onnx"
        )


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        export_onnx.compare_logits(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
    assert str(caught.value) == (
        "two versions of a model answer in different shapes: got [2, 3] against [2, 4]; both must "
        "give one logit a class for each image. Fix: build both from the same family and options."
    )


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"^ONNX Runtime does not run broken\.onnx: got "):
        export_onnx.run_onnx(broken, batch(1))


def test_a_network_trained_channels_last_gets_no_gather(tmp_path: Path) -> None:
    """Seen: Flatten after pooling became Range, Mul and Gather over Shape of the input."""
    pooled = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    export_onnx.export(
        pooled.to(memory_format=torch.channels_last),
        channels=1,
        size_px=8,
        out=tmp_path / "model.onnx",
    )
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds == ["Conv", "ReduceMean", "Reshape", "Gemm"]
