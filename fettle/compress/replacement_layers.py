"""Replacement layers: the few plain modules that techniques put in a layer's place, as values.

A plan holds them as JSON: shapes, never weights. Only what every runtime has: nothing at all,
convolutions, linear layers, normalisation, an activation, and chains of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import nn

# kind: (torch.nn class, its arguments that say the shape)
_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "identity": ("Identity", ()),
    "conv2d": (
        "Conv2d",
        ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    ),
    "linear": ("Linear", ("in_features", "out_features")),
    "batchnorm2d": ("BatchNorm2d", ("num_features", "eps")),
    "relu": ("ReLU", ()),
    "relu6": ("ReLU6", ()),
    "zeropad2d": ("ZeroPad2d", ("padding",)),
}
_WITH_BIAS = ("conv2d", "linear")


class PartDocument(TypedDict):
    """Part in JSON: beside these keys stand torch's arguments for its shape, by their names."""

    kind: str
    parts: NotRequired[list[PartDocument]]


@dataclass(frozen=True, slots=True)
class Part:
    """One module: its kind, torch's arguments for its shape; of a chain, its parts in order."""

    kind: str
    shape: Mapping[str, object] = field(default_factory=dict)  # int, float, bool or list of int
    parts: tuple[Part, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        if self.kind == "chain":
            return {"kind": self.kind, "parts": [part.to_json() for part in self.parts]}
        return {"kind": self.kind, **self.shape}

    @classmethod
    def from_json(cls, doc: PartDocument) -> Part:
        """Read it back."""
        shape = {key: value for key, value in doc.items() if key not in ("kind", "parts")}
        return cls(doc["kind"], shape, tuple(cls.from_json(part) for part in doc.get("parts", ())))


def describe_module(module: nn.Module) -> Part:
    """State `module` as a part; it must be one of the kinds above, or a Sequential of them."""
    from torch import nn

    if isinstance(module, nn.Sequential):
        return Part("chain", parts=tuple(describe_module(child) for child in module))
    for kind, (torch_name, arguments) in _KINDS.items():
        if type(module) is getattr(nn, torch_name):
            shape = {name: _plain(getattr(module, name)) for name in arguments}
            if kind in _WITH_BIAS:
                shape["bias"] = module.bias is not None
            return Part(kind, shape)
    raise AssertionError(f"no part stands for {type(module).__name__}")  # our own mistake


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def build_module(part: Part) -> nn.Module:
    """Make the module, with new weights."""
    from torch import nn

    if part.kind == "chain":
        return nn.Sequential(*(build_module(inner) for inner in part.parts))
    module: nn.Module = getattr(nn, _KINDS[part.kind][0])(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in part.shape.items()
        }
    )
    return module
