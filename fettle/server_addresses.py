"""Server addresses: which Prefect and MLflow servers a project's runs are told to.

The first that is given counts:

    1. the environment      PREFECT_API_URL, MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI
    2. inputs/local.yaml    prefect_api_url, mlflow_tracking_uri, mlflow_registry_uri, in the
                            project's own folder: it is untracked, since an address may hold a token
    3. none                 the project's own: a Prefect server on loopback, MLflow's SQLite file

MLflow's registry is where the runs are tracked, unless it is given by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from fettle.errors import ProjectError
from fettle.local_settings import local_settings

Variable = Literal["PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"]
HTTP = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # MLflow's own list, mlflow/store of 3.17
# What fettle itself puts into its processes' environment stands there too under this name, so that
# a fettle of another project below them does not take it for what the user set.
MARK = "FETTLE_SET_{}"
ENVIRONMENT = "the environment"
# How long a server is asked again that went away: seconds, not the minutes that the clients take.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "PREFECT_CLIENT_MAX_RETRIES": "3",
}
RULES: Mapping[str, tuple[str, str]] = {
    "PREFECT_API_URL": (
        "it is the address of a Prefect server's API, by http or https, with its path, and without "
        "a password (PREFECT_API_AUTH_STRING takes that: Prefect prints the address)",
        "http://HOST:4200/api",
    ),
    "MLFLOW_TRACKING_URI": (
        "it is a server (http, https) or a database (sqlite, postgresql, mysql, mssql); a folder "
        "of files is none that several may write to",
        "http://HOST:5000",
    ),
}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server that a user named: the variable, its value, and where it stands."""

    variable: Variable
    url: str
    place: str

    @property
    def shown(self) -> str:
        """The address as it may be printed: no password, no token."""
        return masked(self.url)

    @property
    def by_http(self) -> bool:
        """Whether a server answers there, not a database."""
        return urlsplit(self.url).scheme in HTTP


def find_address(
    root: Path, environ: Mapping[str, str], variable: Variable
) -> ServerAddress | None:
    """Return the server that the environment or inputs/local.yaml names, None for the project's
    own; its form is not checked.

    Raises ProjectError when inputs/local.yaml cannot be read.
    """
    value = environ.get(variable, "").strip()
    if value and environ.get(MARK.format(variable)) != value:
        return ServerAddress(variable, value, ENVIRONMENT)
    value = local_settings(root).get(variable.lower(), "").strip()
    return ServerAddress(variable, value, "inputs/local.yaml") if value else None


def resolve(root: Path, environ: Mapping[str, str], variable: Variable) -> ServerAddress | None:
    """Find an address, and check its form. Raises ProjectError for one that is none."""
    found = find_address(root, environ, variable)
    if found is None and variable == "MLFLOW_REGISTRY_URI":
        return resolve(root, environ, "MLFLOW_TRACKING_URI")
    if found is not None:
        _check(found)
    return found


def all_of(root: Path, environ: Mapping[str, str]) -> list[ServerAddress]:
    """List the servers that are not the project's own, each address once, their form checked."""
    found = [
        resolve(root, environ, variable)
        for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    ]
    return list({one.url: one for one in reversed(found) if one is not None}.values())[::-1]


def _check(address: ServerAddress) -> None:
    prefect = address.variable == "PREFECT_API_URL"
    rule, example = RULES["PREFECT_API_URL" if prefect else "MLFLOW_TRACKING_URI"]
    try:
        parts = urlsplit(address.url)
        scheme = parts.scheme.partition("+")[0]  # postgresql+psycopg2
        remote = bool(parts.hostname) and parts.port != 0
        whole = parts.path.strip("/") != "" and "@" not in parts.netloc
        known = parts.scheme in HTTP and remote and (not prefect or whole)
        known = known or (not prefect and scheme in DATABASES)
    except ValueError:  # a port that is no number, an open bracket
        known = False
    if not known or re.search(r"\s", address.url):
        key = f"{address.variable.lower()} in inputs/local.yaml"
        where = address.variable if address.place == ENVIRONMENT else key
        raise ProjectError(
            f"{where} names no server",
            got=f"'{address.shown}'",
            rule=rule,
            fix=f"set it to an address like {example}, or take it out: the project then keeps its "
            "own",
        )


def masked(url: str) -> str:
    """Write an address without the secrets in it: a password, a user's token, a query's values."""
    head, mark, query = re.sub(r"//.*@", "//***@", url).partition("#")[0].partition("?")
    return head + mark + re.sub(r"=[^&;]*", "=***", query)


def without_secrets(text: str, urls: list[str]) -> str:
    """Take the secrets of some addresses out of another program's words."""
    for url in urls:
        text = text.replace(url, masked(url))
        try:
            parts = urlsplit(url)
        except ValueError:
            continue
        if parts.password:
            text = text.replace(parts.password, "***")
    return text


def variables(root: Path, environ: Mapping[str, str], own_database: str) -> dict[str, str]:
    """Return what fettle's processes find in their environment of MLflow's address, and how
    patient the servers' clients are.
    """
    found = find_address(root, environ, "MLFLOW_TRACKING_URI")
    if found is not None and found.place == ENVIRONMENT:
        told = {"MLFLOW_TRACKING_URI": found.url}
    else:
        told = marked("MLFLOW_TRACKING_URI", found.url if found else own_database)
    return told | {name: environ.get(name, value) for name, value in PATIENCE.items()}


def marked(variable: Variable, url: str) -> dict[str, str]:
    """Return an address for a process' environment, marked as none that its user gave."""
    return {variable: url, MARK.format(variable): url}
