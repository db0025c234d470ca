"""Kubernetes Gateway API: the router's weights as an HTTPRoute, one a rollout.

Renders and, where `kubectl` is, applies; the cluster's gateway (Envoy, NGINX, Istio, …) does the
rest. It draws each request anew. Two things the Gateway API (v1.2) has no word for, so that a plan
which asks for them is refused here: a sticky key that only grows with the weight, and the replay of
a failed request on the other backend. Attempts come from the gateway's own access log.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import dataclass

from ruamel.yaml import YAML

from fettle.errors import ProjectError, TransientError, UserError

API = "gateway.networking.k8s.io/v1"
WHOLE = 10_000  # weights are integers: hundredths of a percent
NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"  # RFC 1123
APPLY_S = 30


@dataclass(frozen=True, slots=True)
class Route:
    """The object's name, its namespace, the gateway that it hangs on, and the two services."""

    name: str
    namespace: str
    gateway: str
    champion: str
    challenger: str
    port: int = 3000


def render(route: Route, weight_percent: float, *, sticky_key: str | None = None) -> str:
    """Return the HTTPRoute as YAML; at 0 the challenger's backend stays, with weight 0.

    Raises UserError for a weight, a name or a sticky key that the object cannot carry.
    """
    _check(route, weight_percent, sticky_key)
    challenger = round(weight_percent / 100 * WHOLE)
    backends = [
        {"name": route.champion, "port": route.port, "weight": WHOLE - challenger},
        {"name": route.challenger, "port": route.port, "weight": challenger},
    ]
    doc: dict[str, object] = {
        "apiVersion": API,
        "kind": "HTTPRoute",
        "metadata": {
            "name": route.name,
            "namespace": route.namespace,
            "labels": {"app.kubernetes.io/managed-by": "fettle"},
        },
        "spec": {
            "parentRefs": [{"name": route.gateway}],
            "rules": [
                {
                    "matches": [{"path": {"type": "Exact", "value": "/predict"}}],
                    "backendRefs": backends,
                },
                {"backendRefs": [{"name": route.champion, "port": route.port}]},
            ],
        },
    }
    out = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(doc, out)
    return out.getvalue()


def set_weight(route: Route, weight_percent: float, *, sticky_key: str | None = None) -> None:
    """Apply the route with kubectl; the same weight again changes nothing.

    No caller here: for a script that drives a cluster (docs/canary.md), as long as the supervisor
    knows one machine.

    Raises ProjectError without kubectl, TransientError when the cluster refuses.
    """
    manifest = render(route, weight_percent, sticky_key=sticky_key)
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ProjectError(
            "the route cannot be applied", got="no kubectl on PATH", fix="install kubectl"
        )
    done = subprocess.run(
        [kubectl, "apply", "-f", "-"],
        input=manifest,
        capture_output=True,
        text=True,
        timeout=APPLY_S,
        check=False,
    )
    if done.returncode:
        raise TransientError(
            "the cluster did not take the route",
            got=done.stderr.strip(),
            fix="the old weights stay; try again",
        )


def _check(route: Route, weight_percent: float, sticky_key: str | None) -> None:
    if not 0 <= weight_percent <= 100:
        raise UserError(
            "a weight is a share of the requests in percent",
            got=f"{weight_percent:g}",
            rule="0 to 100",
        )
    if sticky_key is not None:
        raise UserError(
            "the Gateway API cannot keep users on their arm while the weight grows",
            got=sticky_key,
            rule="it draws each request anew",
            fix="params.yaml: promote.sticky_key: null, or route with nginx",
        )
    for name in (route.name, route.namespace, route.gateway, route.champion, route.challenger):
        if not re.fullmatch(NAME, name):
            raise UserError(
                "this is no name of a Kubernetes object",
                got=name,
                rule="lower-case letters, digits and -, at most 63",
            )
