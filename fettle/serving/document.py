"""State the HTTP interface as OpenAPI: what BentoML's own generator cannot say of one route.

It knows one content type a route, three error codes and no authentication; a client generated from
that would never send an image. Plain dictionaries, laid over its document.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]  # Any: an OpenAPI document is free-form JSON

ERRORS = {
    400: "The body is no image, or an array of a wrong shape or range; the text says why.",
    401: "The API key is missing or wrong.",
    403: "The server has no API key and answers loopback clients only.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The content type is not taken.",
    429: "Too many requests at once.",
    504: "No answer in time.",
}
SECURITY: list[Json] = [{"bearer": []}, {"api_key": []}]
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
BINARY = {"type": "string", "format": "binary"}


def array_schema() -> Json:
    """Describe the JSON body: [H, W], [H, W, C], [N, H, W] or [N, H, W, C] of 0 to 255."""
    return {
        "title": "Images",
        "description": "One image as [H, W] or [H, W, C], or a batch as [N, H, W] or "
        "[N, H, W, C]; C is 1 or 3, any height and width. In three dimensions a last axis of 1 "
        "or 3 means channels.",
        "oneOf": [_nested(2), _nested(3), _nested(4)],
    }


def contents() -> dict[str, Json]:
    """Describe every content type that /predict takes."""
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": BINARY}},
    }
    return {
        "application/json": {"schema": array_schema()},
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
        "multipart/form-data": {"schema": form},
    }


def errors() -> dict[int, Json]:
    """Describe every error answer: {"error": reason}."""
    reason = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {
        status: {"description": text, "content": {"application/json": {"schema": reason}}}
        for status, text in ERRORS.items()
    }


def _nested(depth: int) -> Json:
    if depth == 0:
        return {"type": "number", "minimum": 0, "maximum": 255}
    return {"type": "array", "minItems": 1, "items": _nested(depth - 1)}
