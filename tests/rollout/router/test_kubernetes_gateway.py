from __future__ import annotations

import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fettle.errors import ProjectError, TransientError, UserError
from fettle.rollout.router import kubernetes_gateway

ROUTE = kubernetes_gateway.Route("digits", "ml", "public", "digits-a1", "digits-b2")

GOLDEN = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: digits
  namespace: ml
  labels:
    app.kubernetes.io/managed-by: fettle
spec:
  parentRefs:
  - name: public
  rules:
  - matches:
    - path:
        type: Exact
        value: /predict
    backendRefs:
    - name: digits-a1
      port: 3000
      weight: 9750
    - name: digits-b2
      port: 3000
      weight: 250
  - backendRefs:
    - name: digits-a1
      port: 3000
"""


def test_a_weight_is_rendered_as_the_golden_route() -> None:
    assert kubernetes_gateway.render(ROUTE, 2.5) == GOLDEN


@pytest.mark.parametrize("weight", [0, 1, 33.33, 50, 100])
def test_the_two_weights_always_make_a_whole(weight: float) -> None:
    doc = YAML(typ="safe").load(io.StringIO(kubernetes_gateway.render(ROUTE, weight)))
    champion, challenger = doc["spec"]["rules"][0]["backendRefs"]
    assert champion["weight"] + challenger["weight"] == 10_000
    assert challenger["weight"] == round(weight * 100)


def test_what_the_route_cannot_do_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        kubernetes_gateway.render(ROUTE, 5, sticky_key="cookie:session")
    assert str(caught.value) == (
        "the Gateway API cannot keep users on their arm while the weight grows: got "
        "cookie:session; it draws each request anew. Fix: params.yaml: promote.sticky_key: null, "
        "or route with nginx."
    )
    with pytest.raises(UserError, match="got 101; 0 to 100"):
        kubernetes_gateway.render(ROUTE, 101)
    with pytest.raises(UserError, match="no name of a Kubernetes object: got Digits"):
        kubernetes_gateway.render(kubernetes_gateway.Route("Digits", "ml", "public", "a", "b"), 5)


def _kubectl(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "kubectl"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_route_goes_to_kubectl_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kubectl(tmp_path, f'echo "$@" > {tmp_path}/args; cat > {tmp_path}/got', monkeypatch)
    kubernetes_gateway.set_weight(ROUTE, 2.5)
    assert (tmp_path / "got").read_text() == GOLDEN
    assert (tmp_path / "args").read_text() == "apply -f -\n"


def test_a_cluster_that_refuses_is_reported_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kubectl(tmp_path, "echo forbidden >&2; exit 1", monkeypatch)
    with pytest.raises(TransientError) as caught:
        kubernetes_gateway.set_weight(ROUTE, 2.5)
    assert str(caught.value) == (
        "the cluster did not take the route: got forbidden. Fix: the old weights stay; try again."
    )


def test_without_kubectl_nothing_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProjectError, match="no kubectl on PATH"):
        kubernetes_gateway.set_weight(ROUTE, 2.5)
