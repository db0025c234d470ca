"""Serve a packaged image classifier over HTTP: one route, `POST /predict`.

This file is thin: it hangs the server of fettle/serving/asgi_app.py into BentoML, which packages
it, starts its workers, keeps them alive and ends them. It stands at the root of the release folder,
which is also a Bento's `src`, so `bentoml serve TAG` and `bentoml serve releases/DIGEST` run the
same bytes.
"""

# BentoML's decorators and base classes carry no usable types:
# mypy: disable-error-code="misc, untyped-decorator, attr-defined"
from __future__ import annotations

import gc
import os
import re
from pathlib import Path
from typing import Any

import bentoml
import click
import httptools  # noqa: F401  uvicorn takes it when it is there: named, so that a release has it
import uvloop  # noqa: F401  as above; the two serve 1.5 times the requests
from bentoml.exceptions import BentoMLException

from fettle import manifest, process_lifetime
from fettle.errors import FettleError, TamperedError
from fettle.serving import api_key_file, asgi_app, authentication, release_bundle

HERE = Path(__file__).parent
PARENT = "FETTLE_SERVE_PID"  # told to the workers: the process that started them
WORKERS = 2  # one serves on while the other is made again; each takes 0.2 GB and starts in 3 s


class Served(bentoml.Service[Any]):  # Any: the class that the decorator below wraps
    """A BentoML service whose requests are answered by fettle's own routes first."""

    def to_asgi(self, is_main: bool = True) -> Any:  # type: ignore[explicit-any]  # an ASGI application
        pages = super().to_asgi(is_main)
        tie_to_parent()
        served = asgi_app.build(
            release_bundle.load(HERE), pages=pages, key=api_key_file.read(os.environ)
        )
        gc.freeze()  # what was imported stays: no collection needs to walk through it again
        return served


@bentoml.service(
    name="classifier",
    service_class=Served,
    workers=WORKERS,
    metrics={
        "enabled": False
    },  # ours count the same with fewer labels: fettle/serving/prometheus_metrics.py
    logging={"access": {"enabled": False}},  # ours log JSON: fettle/serving/request_telemetry.py
    monitoring={"enabled": False},
)
class Classifier:
    """Name what is in an image: the likeliest class and its probability."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse to start, in one paragraph, before any worker is made."""
        be_quiet()
        os.environ[PARENT] = str(os.getpid())
        try:
            authentication.check_bind(host(), api_key_file.read(os.environ))
            _, digest = release_bundle.verify(HERE)
            check_version(digest)
        except FettleError as err:
            raise BentoMLException(str(err)) from err


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
    short = digest[: manifest.SHORT]
    built = str(Classifier.bento.tag.version) if Classifier.bento else ""
    for named in (built, HERE.name):
        if re.fullmatch(f"[0-9a-f]{{{manifest.SHORT}}}", named) and named != short:
            raise TamperedError(
                "the release is not the one that its name says",
                got=short,
                rule=f"it is named {named}, after the digest of what it held",
                fix="delete it and run `fettle run`, which makes it again",
            )


def tie_to_parent() -> None:
    """End with BentoML: a killed one leaves no worker behind on its port, nor one yet to start."""
    process_lifetime.die_with_parent()
    if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
        raise SystemExit("BentoML was gone before this worker was ready")


def be_quiet() -> None:
    """Switch usage reports off (BentoML asked once already), and bytecode in the workers.

    A `__pycache__` in the sources would make them differ from what was packaged.
    """
    from bentoml._internal.utils.analytics import usage_stats

    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    usage_stats.do_not_track.cache_clear()
