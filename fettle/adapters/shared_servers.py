"""Shared servers: a team's Prefect and MLflow, asked before the work whether they take a run.

Which they are says fettle/server_addresses.py; the project's own are fettle/adapters/local_servers.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

from fettle.errors import FettleError, TransientError, UserError
from fettle.project import Project
from fettle.server_addresses import ServerAddress, all_of, without_secrets

TIMEOUT_S = 5.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
HEALTH = "/health"  # of both, for everybody
NAMES = {
    "PREFECT_API_URL": "Prefect's server",
    "MLFLOW_TRACKING_URI": "MLflow's server",
    "MLFLOW_REGISTRY_URI": "MLflow's registry",
}
KEYS = {
    "PREFECT_API_URL": "PREFECT_API_KEY, or PREFECT_API_AUTH_STRING to USER:PASSWORD",
    "MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD",
}
DENIED = ("status 401", "status 403")


def refuse(project: Project, environ: Mapping[str, str]) -> list[ServerAddress]:
    """Ask every shared server of a project, for some seconds; return them.

    Raises ProjectError for an address that is none, TransientError for a server that does not
    answer, UserError for one that does not let this user in.
    """
    found = all_of(project.root, environ)
    for address in found:
        if (err := fault(address, environ)) is not None:
            raise err
    return found


def answers(address: ServerAddress, environ: Mapping[str, str]) -> bool:
    """Say whether a server answers at all; a database is not asked."""
    return not address.by_http or _ask(address.url, HEALTH, environ, None) is None


def fault(address: ServerAddress, environ: Mapping[str, str]) -> FettleError | None:
    """Ask a server whether it takes this user's runs; return what is wrong, None when nothing is.

    MLflow's own client asks the second time: it knows the places where a user keeps credentials.
    """
    if not address.by_http:
        got = _connects(address.url)
    else:
        got = _ask(address.url, HEALTH, environ, None)
    if got is None and address.variable == "PREFECT_API_URL":
        got = _ask(address.url, "/admin/version", environ, _authorization(environ))
    elif got is None:
        from fettle.adapters import mlflow_client

        got = mlflow_client.fault(address.url)
        if got is not None and address.by_http:  # a client that is kept out does not always say so
            plain = _ask(address.url, "/api/2.0/mlflow/experiments/search", environ, None)
            got = plain if plain in DENIED else got
    return None if got is None else _refusal(address, without_secrets(got, [address.url]))


def _refusal(address: ServerAddress, got: str) -> FettleError:
    name = NAMES[address.variable]
    asked = f"{got} from {address.shown} ({address.variable}, by {address.place})"
    rule = "a run is told to it from the first stage on"
    if got in DENIED:
        keys = KEYS.get(address.variable, KEYS["MLFLOW_TRACKING_URI"])
        fix = f"set {keys}, or take {address.variable} out: the project then keeps its own"
        return UserError(f"{name} does not let this user in", got=asked, rule=rule, fix=fix)
    return TransientError(
        f"{name} does not take this run",
        got=asked,
        rule=f"{rule}, so it has {TIMEOUT_S:g} s to answer before the work",
        fix=f"start it, or mend {address.variable}, or take it out: the project then keeps its own",
    )


def _ask(url: str, path: str, environ: Mapping[str, str], authorization: str | None) -> str | None:
    """Ask a path below an address; return what is wrong, None for an answer of 200."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    place = urlunsplit((parts.scheme, host, parts.path.rstrip("/") + path, "", ""))
    request = urllib.request.Request(place)
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=_tls(environ)) as answer:
            return None if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as err:
        with err:
            return f"status {err.code}"
    except (OSError, http.client.HTTPException, ValueError) as err:
        reason = getattr(err, "reason", err)
        return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Trust what the servers' own clients are told to trust."""
    context = ssl.create_default_context()
    lax = ("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "MLFLOW_TRACKING_INSECURE_TLS")
    if any(environ.get(name, "").lower() in ("1", "true") for name in lax):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    names = ("PREFECT_API_SSL_CERT_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE")
    for file in (environ[name] for name in names if environ.get(name)):
        context.load_verify_locations(file)
    return context


def _authorization(environ: Mapping[str, str]) -> str | None:
    """Return the header that Prefect's client sends."""
    if pair := environ.get("PREFECT_API_AUTH_STRING"):
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    key = environ.get("PREFECT_API_KEY")
    return f"Bearer {key}" if key else None


def _connects(url: str) -> str | None:
    """Try a database's port; a file's database is opened by MLflow itself."""
    parts = urlsplit(url)
    kind = parts.scheme.partition("+")[0]
    if not parts.hostname or kind not in PORTS:
        return None
    try:
        with socket.create_connection(
            (unquote(parts.hostname), parts.port or PORTS[kind]), TIMEOUT_S
        ):
            return None
    except OSError as err:
        return str(err.strerror or err)
