"""OpenAPI document of the whole HTTP interface, in plain dictionaries."""

from __future__ import annotations

from fettle.preprocessing import FORMATS
from fettle.serving.image_request import IMAGES_MAX, SHAPE

Json = dict[str, object]

ERRORS = {
    400: "The body is no image, or an array of a wrong shape or range; the text says why.",
    401: "The API key is missing or wrong.",
    403: "The server has no API key and answers loopback clients only.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The content type is not taken.",
    429: "Too many requests at once; `Retry-After` says when to come again.",
    500: "The model failed on this request; the server's log says why.",
    504: "No answer in time.",
}
SECURITY: list[Json] = [{"bearer": []}, {"api_key": []}]
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
BINARY = {"type": "string", "format": "binary"}
REASON = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
LABEL_AND_PROBABILITY: Json = {
    "label": {"type": "string"},
    "probability": {"type": "number", "minimum": 0, "maximum": 1},
}
RANKED: Json = {
    "type": "object",
    "required": ["label", "probability"],
    "properties": LABEL_AND_PROBABILITY,
}
PREDICTION: Json = {
    "type": "object",
    "description": "The likeliest class of one image, and the best few in order.",
    "required": ["label", "probability", "top"],
    "properties": {
        **LABEL_AND_PROBABILITY,
        "top": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Ranked"}},
    },
}
NAMED = {
    "X-Request-Id": {
        "description": "The request's own, when well-formed, else a new one.",
        "schema": {"type": "string"},
    },
    "X-Fettle-Release": {
        "description": "The digest of the release that answered.",
        "schema": {"type": "string"},
    },
}


def openapi(name: str, version: str) -> Json:
    """Describe the server of the release `name` of digest `version`."""
    return {
        "openapi": "3.0.3",
        "info": {
            "title": name,
            "version": version,
            "description": "Name what is in an image: the likeliest class and its probability.",
        },
        "servers": [{"url": "."}],
        "paths": {
            "/predict": {"post": predict()},
            "/metrics": {"get": page("Prometheus metrics.", "text/plain", SECURITY)},
            "/docs.json": {"get": page("This document.", "application/json", SECURITY)},
            "/livez": {"get": page("200 while the process answers.", "text/plain", [])},
            "/healthz": {"get": page("As /livez.", "text/plain", [])},
            "/readyz": {
                "get": page(
                    "200 once the model is loaded.",
                    "text/plain",
                    [],
                    {503: "The model does not answer."},
                )
            },
        },
        "components": {
            "securitySchemes": SCHEMES,
            "schemas": {"Ranked": RANKED, "Prediction": PREDICTION, "Error": REASON},
        },
    }


def predict() -> Json:
    """Describe the one route that answers."""
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}
    return {
        "summary": "Name what is in each image of the request.",
        "operationId": "predict",
        "security": SECURITY,
        "parameters": [shape_header()],
        "requestBody": {"required": True, "content": contents()},
        "responses": {
            "200": {
                "description": "One prediction an image, in the order of the request.",
                "headers": NAMED,
                "content": {"application/json": {"schema": rows}},
            },
            **errors(ERRORS),
        },
    }


def page(
    text: str, kind: str, security: list[Json], failures: dict[int, str] | None = None
) -> Json:
    """Describe a route that is only read."""
    refused = {401: ERRORS[401], 403: ERRORS[403]} if security else {}
    ok = {"description": text, "content": {kind: {"schema": {}}}}
    return {
        "summary": text,
        "security": security,
        "responses": {"200": ok, **errors({**refused, **(failures or {})})},
    }


def shape_header() -> Json:
    """Describe the header that makes an octet-stream raw samples."""
    return {
        "name": "X-Shape",
        "in": "header",
        "required": False,
        "description": "With application/octet-stream: the body is uint8 of this shape, row by "
        "row: H,W or H,W,C or N,H,W or N,H,W,C. Without it the body is one encoded image.",
        "schema": {"type": "string", "pattern": f"^{SHAPE.pattern}$"},
        "example": "32,32,1",
    }


def array_schema() -> Json:
    """Describe the JSON body: [H, W], [H, W, C], [N, H, W] or [N, H, W, C] of 0 to 255."""
    return {
        "title": "Images",
        "description": "One image as [H, W] or [H, W, C], or a batch as [N, H, W] or "
        f"[N, H, W, C] with N to {IMAGES_MAX}; C is 1 or 3, any height and width. In three "
        "dimensions a last axis of 1 or 3 means channels. Refused, since they would be taken for "
        "other images: 2 or 4 channels; channels first (where the model takes RGB that is "
        "[3, H, W] and [4, H, W] too: send that many grey images as [N, H, W, 1]); "
        "fractions of 0 to 1.",
        "oneOf": [_nested(2), _nested(3), _nested(4)],
    }


def contents() -> dict[str, Json]:
    """Describe every content type that /predict takes."""
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": BINARY, "maxItems": IMAGES_MAX}},
    }
    return {
        "application/json": {"schema": array_schema()},
        **{f"image/{name.lower()}": {"schema": BINARY} for name in FORMATS},
        "application/octet-stream": {"schema": BINARY},
        "multipart/form-data": {"schema": form},
    }


def errors(texts: dict[int, str]) -> dict[str, Json]:
    """Describe error answers: {"error": reason}."""
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        str(status): {"description": text, "content": {"application/json": {"schema": schema}}}
        for status, text in texts.items()
    }


def _nested(depth: int) -> Json:
    if depth == 0:
        return {"type": "number", "minimum": 0, "maximum": 255}
    return {"type": "array", "minItems": 1, "items": _nested(depth - 1)}
