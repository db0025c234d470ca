"""Serve a packaged image classifier over HTTP: one route, `POST /predict`.

This file is thin: what an image is lives in fettle/serving/body.py, who may ask in guard.py, the
model in bundle.py. It stands at the root of the release folder, which is also a Bento's `src`, so
`bentoml serve TAG` and `bentoml serve releases/DIGEST` run the same bytes.
"""

# BentoML's decorators and base classes carry no usable types:
# mypy: disable-error-code="misc, untyped-decorator, attr-defined"
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import bentoml
import click
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel, RootModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fettle.errors import FettleError, TamperedError
from fettle.serving import apikey, body, bundle, document, guard
from fettle.serving.preprocess import Pixels

HERE = Path(__file__).parent
ROUTE = "/predict"
TOP = 5  # classes in an answer
THREADS = 2  # requests decoded and answered at once; a model run takes one thread of its own
CONCURRENT_MAX = 64  # beyond it: 429 at once instead of a queue that times out
TIMEOUT_S = 30  # 256 images of 224 px at 10 ms each, ten times over
DIGEST_HEADER = "X-Fettle-Release"


class Ranked(BaseModel):
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


class Prediction(Ranked):
    """The likeliest class of one image, and the best few in order."""

    top: list[Ranked]


class Predictions(bentoml.IODescriptor, RootModel[list[Prediction]]):
    """One prediction an image, in the order of the request."""


class Upload(bentoml.IODescriptor):
    """A request body as it came: decoding it waits for the worker thread.

    BentoML's own image and file types would fetch a URL that a client sends in place of a file.
    """

    files: list[bytes]
    content_type: str
    refusal: str | None = None

    @classmethod
    async def from_http_request(cls, request: Request, _: Any) -> Upload:  # Any: BentoML's serde
        kind = request.headers.get("content-type", "")
        if body.media_type(kind) != "multipart/form-data":
            return cls(files=[await request.body()], content_type=kind)
        try:
            form = await request.form(max_files=body.IMAGES_MAX)
        except HTTPException as err:
            return cls(files=[], content_type=kind, refusal=str(err.detail))
        parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        return cls(files=[await part.read() for part in parts], content_type=kind)

    @classmethod
    def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:  # Any: as in pydantic
        return document.array_schema()


class Guarded(bentoml.Service[Any]):  # Any: the class that the decorator below wraps
    """A BentoML service behind the guard, with the whole truth in its OpenAPI document."""

    def to_asgi(self, is_main: bool = True) -> Any:  # Any: an ASGI application
        return guard.Guard(super().to_asgi(is_main), key=apikey.read(os.environ))

    @property
    def openapi_spec(self) -> Any:  # Any: BentoML's own class
        spec = super().openapi_spec
        spec.components["securitySchemes"] = document.SCHEMES
        post = spec.paths[ROUTE].post
        post["requestBody"] = {"required": True, "content": document.contents()}
        post["responses"] = {200: post["responses"][200], **document.errors()}
        post["security"] = document.SECURITY
        return spec


@bentoml.service(
    name="classifier",
    service_class=Guarded,
    workers=1,
    threads=THREADS,
    traffic={"timeout": TIMEOUT_S, "max_concurrency": CONCURRENT_MAX},
    monitoring={"enabled": False},
)
class Classifier:
    """Name what is in an image: the likeliest class and its probability."""

    def __init__(self) -> None:
        self._bundle = bundle.load(HERE)
        self._bundle.warm_up()

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse to start, in one paragraph, before any worker is made."""
        be_quiet()
        try:
            guard.check_bind(host(), apikey.read(os.environ))
            _, digest = bundle.verify(HERE)
            check_version(digest)
        except FettleError as err:
            raise BentoMLException(str(err)) from err

    @bentoml.api(route=ROUTE, input_spec=Upload, output_spec=Predictions)
    def predict(self, files: list[bytes], content_type: str, refusal: str | None) -> Response:
        """Name what is in each image of the request."""
        try:
            pixels = self._read(files, content_type, refusal)
        except body.BadRequest as err:
            return JSONResponse({"error": str(err)}, status_code=err.status)
        answer = [
            {
                "label": best[0].label,
                "probability": best[0].probability,
                "top": [{"label": one.label, "probability": one.probability} for one in best],
            }
            for best in self._bundle.rank(pixels, most=TOP)
        ]
        return JSONResponse(answer, headers={DIGEST_HEADER: self._bundle.digest})

    def _read(self, files: list[bytes], content_type: str, refusal: str | None) -> Pixels:
        if refusal is not None:
            raise body.BadRequest(refusal)
        if body.media_type(content_type) == "multipart/form-data":
            return body.from_files(files, self._bundle.preprocess)
        return body.read(files[0], content_type, self._bundle.preprocess)


def host() -> str:
    """Return the address that `bentoml serve` is about to listen on."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    command = click.get_current_context(silent=True)
    given = command.params.get("host") if command else None
    return str(given or BentoMLContainer.http.host.get())


def check_version(digest: str) -> None:
    """Refuse a Bento version, or a folder's name, that is a digest but not that of what it holds.

    Raises TamperedError.
    """
    short = digest[: bundle.SHORT]
    built = str(Classifier.bento.tag.version) if Classifier.bento else ""
    for named in (built, HERE.name):
        if re.fullmatch(f"[0-9a-f]{{{bundle.SHORT}}}", named) and named != short:
            raise TamperedError(
                "the release is not the one that its name says",
                got=short,
                rule=f"it is named {named}, after the digest of what it held",
                fix="delete it and run `fettle run`, which makes it again",
            )


def be_quiet() -> None:
    """Switch usage reports off (BentoML asked once already), and bytecode in the workers.

    A `__pycache__` in the sources would make them differ from what was packaged.
    """
    from bentoml._internal.utils.analytics import usage_stats

    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    usage_stats.do_not_track.cache_clear()
