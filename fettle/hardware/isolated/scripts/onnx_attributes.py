"""Attributes of an ONNX node as plain values, and the error of one that a format cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import helper

if TYPE_CHECKING:
    from onnx import NodeProto

Attributes = dict[str, Any]  # type: ignore[explicit-any]  # each operator has its own


class Untranslatable(Exception):
    """An operator in a form that the other format cannot say; the text names the form."""


def attributes(node: NodeProto) -> Attributes:
    """Return a node's attributes: integers, floats, tuples of them, bytes."""
    given = {}
    for one in node.attribute:
        value = helper.get_attribute_value(one)
        given[one.name] = tuple(value) if isinstance(value, list) else value
    return given
