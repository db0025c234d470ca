"""Process environment: what every child process of a project is told, beside its addresses: no
telemetry, and no proxy before what runs on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

# Every tool's own switch. DO_NOT_TRACK: MLflow wants exactly "true". A run's address, which MLflow
# prints on standard output, holds the token of a server's.
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "DVC_NO_ANALYTICS": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "GX_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def past_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy variables of a child: none for loopback, and none that no client of ours
    can use.

    Prefect's HTTP client builds a connection for every proxy it is told of, also one that it then
    never asks, and raises at a SOCKS proxy or a malformed address. `http` and `https` stay for what
    a data source downloads.
    """
    unusable = {
        name: ""
        for name in (f"{kind}_proxy" for kind in ("http", "https", "all"))
        for name in (name, name.upper())
        if environ.get(name) and not _usable(environ[name])
    }
    asked = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
    hosts = dict.fromkeys(host.strip() for host in (*asked, *LOOPBACK) if host.strip())
    listed = "*" if "*" in hosts else ",".join(hosts)
    return {**unusable, "no_proxy": listed, "NO_PROXY": listed}


def _usable(proxy: str) -> bool:
    """Tell whether a proxy's address is one that HTTP clients understand."""
    try:
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False
