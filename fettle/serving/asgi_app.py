"""ASGI application of a server: telemetry, authentication, our routes, then BentoML's pages.

    /predict      predict_route.py            /metrics     prometheus_metrics.py
    /docs.json    openapi_document.py         /readyz      503 while the model hangs
    the rest      `pages`: BentoML's own application (health, its page, its life cycle)

Our routes answer before BentoML's middleware and routing, which cost 0.75 ms of CPU a request where
these cost 0.04 (ADR 0027).
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable

from fettle.manifest import SHORT
from fettle.serving import openapi_document
from fettle.serving.asgi_messages import App, Message, Receive, Send, answer, refuse
from fettle.serving.authentication import ApiKeyGuard
from fettle.serving.predict_route import PredictRoute
from fettle.serving.prometheus_metrics import KIND, ServerMetrics
from fettle.serving.release_bundle import ReleaseBundle
from fettle.serving.request_telemetry import Telemetry, to_stdout

OURS = frozenset({"/predict", "/metrics", "/docs.json"})
THEIRS = frozenset({"/", "/livez", "/readyz", "/healthz"})


def build(
    served: ReleaseBundle, *, pages: App, key: str | None, write: Callable[[str], None] = to_stdout
) -> App:
    """Return the whole server of one worker; `served` answers once here, to be warm.

    `write` takes the log's lines.
    """
    name = str(served.release["name"])
    metrics = ServerMetrics(name=name, digest=served.digest[:SHORT])
    predict = PredictRoute(served, on_batch=metrics.batch)
    served.warm_up()
    docs = json.dumps(openapi_document.openapi(name, served.digest[:SHORT])).encode()
    # what lives as long as the worker need not be looked at again by every collection
    gc.collect()
    gc.freeze()

    async def route(scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == "/predict":
            return await predict(scope, receive, send)
        if path == "/readyz" and predict.stuck():
            return await refuse(send, 503, "the model does not answer")
        if path in OURS and scope["method"] not in ("GET", "HEAD"):
            return await refuse(send, 405, "only GET is taken here", [(b"allow", b"GET")])
        if path == "/metrics":
            return await answer(send, 200, metrics.text(), kind=KIND)
        if path == "/docs.json":
            return await answer(send, 200, docs)
        return await pages(scope, receive, send)

    return Telemetry(
        ApiKeyGuard(route, key=key), routes=OURS | THEIRS, metrics=metrics, write=write
    )
