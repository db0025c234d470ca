"""Operators that a torch module runs, listed by watching one image go through it.

Cheaper than lowering it (milliseconds instead of seconds), so that a search can ask what a
candidate would cost. BatchNorm and activations are not listed: lowering folds the one, runtimes
fuse the other into the operator before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fettle.compress import forward_hooks
from fettle.operator_shape import Kind, Operator

if TYPE_CHECKING:
    from torch import Tensor, nn

POOLS = ("mean", "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d")


class _AtenOperator(Protocol):
    """What torch dispatches to; the name of `overloadpacket` is aten's."""

    overloadpacket: _Named

    def __call__(self, *args: object, **kwargs: object) -> object: ...


class _Named(Protocol):
    __name__: str


def operators(model: nn.Module, example: Tensor) -> list[Operator]:
    """Run `example` [1, C, S, S] through `model`; list its operators in the order they ran.

    An operator bears the name of the module it ran in.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    ran: list[Operator] = []
    inside = [""]

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base has no types
        def __torch_dispatch__(
            self,
            func: _AtenOperator,
            types: Sequence[type],
            args: tuple[object, ...] = (),
            kwargs: Mapping[str, object] | None = None,
        ) -> object:
            result = func(*args, **(kwargs or {}))
            operator = _operator(func.overloadpacket.__name__, args, result, inside[-1])
            if operator is not None:
                ran.append(operator)
            return result

    def enter(name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        return lambda *_: inside.append(name)

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(enter(name)))
        hooks.append(module.register_forward_hook(lambda *_: inside.pop() and None))
    with Watch():  # type: ignore[no-untyped-call]  # as above
        forward_hooks.forward(model, example, hooks)
    return ran


def _operator(aten: str, args: Sequence[Any], result: Any, name: str) -> Operator | None:  # type: ignore[explicit-any] # each aten operator has arguments of its own
    kind: Kind
    if aten == "convolution":
        source, weight, _, stride, _, _, transposed, _, groups = args[:9]
        if transposed or source.dim() != 4:
            return None
        return Operator(
            name=name,
            kind="conv",
            inputs=source.shape[1],
            outputs=weight.shape[0],
            height=result.shape[2],
            width=result.shape[3],
            kernel=(weight.shape[2], weight.shape[3]),
            stride=stride[0],
            groups=groups,
        )
    if aten in ("addmm", "mm"):
        left = args[1] if aten == "addmm" else args[0]
        return Operator(name=name, kind="gemm", inputs=left.shape[-1], outputs=result.shape[-1])
    if aten in ("add", "add_") and result.dim() == 4:
        kind, source = "add", result
    elif aten in POOLS and args[0].dim() == 4:
        kind, source = "pool", args[0]
        result = result[0] if isinstance(result, tuple) else result
    else:
        return None
    height, width = (result.shape[2], result.shape[3]) if result.dim() == 4 else (1, 1)
    kernel = (source.shape[2] // height, source.shape[3] // width) if kind == "pool" else (1, 1)
    stride = max(1, math.isqrt(kernel[0] * kernel[1])) if kind == "pool" else 1
    return Operator(
        name=name, kind=kind, inputs=source.shape[1], outputs=source.shape[1],
        height=height, width=width, kernel=kernel, stride=stride,
    )  # fmt: skip
