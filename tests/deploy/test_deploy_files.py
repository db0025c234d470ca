"""deploy/: what it starts is what the installed tools take, the three sets agree, no secret in any.

The manifests are checked against Kubernetes' own schemas where `kubernetes-validate` is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fettle import server_addresses
from fettle.cli import worker

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
Doc = dict[str, Any]
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SERVERS = {"prefect": "4200", "mlflow": "5000"}


def load(path: Path) -> Iterator[Doc]:
    yield from YAML(typ="safe").load_all(path)


def compose() -> Doc:
    (doc,) = load(DEPLOY / "compose.yaml")
    return doc


def documents() -> list[Doc]:
    return [doc for path in MANIFESTS for doc in load(path)]


def workloads() -> dict[str, Doc]:
    """{name: the pod's specification} of what runs."""
    return {
        doc["metadata"]["name"]: doc["spec"]["template"]["spec"]
        for doc in documents()
        if doc["kind"] in ("Deployment", "StatefulSet")
    }


def settings() -> set[str]:
    """The names in servers.env.example."""
    return set(re.findall(r"^([A-Z0-9_]+)=", (DEPLOY / "servers.env.example").read_text(), re.M))


def unit(name: str) -> dict[str, str]:
    """The settings of a unit that stand in it once."""
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


def test_each_set_has_the_same_five_parts() -> None:
    services = set(compose()["services"])
    assert services == {"postgres", "s3", "prefect", "mlflow", "worker-1", "worker-2"}
    assert set(workloads()) == {"postgres", "s3", "prefect", "mlflow", "worker"}
    assert [path.stem for path in UNITS] == ["fettle-mlflow", "fettle-prefect", "fettle-worker@"]


@pytest.mark.parametrize("name", SERVERS)
def test_the_servers_are_started_alike_and_on_their_port(name: str) -> None:
    in_compose = compose()["services"][name]["command"]
    (container,) = workloads()[name]["containers"]
    in_unit = unit(f"fettle-{name}")["ExecStart"].split()
    words = {"prefect": ["prefect", "server", "start"], "mlflow": ["mlflow", "server"]}[name]
    for command in (in_compose, container["command"], [Path(in_unit[0]).name, *in_unit[1:]]):
        assert command[: len(words)] == words
        assert command[command.index("--port") + 1] == SERVERS[name]
    assert container["ports"][0]["containerPort"] == int(SERVERS[name])
    assert "--host 127.0.0.1" in " ".join(in_unit)


def test_every_option_is_one_that_the_installed_tool_has() -> None:
    for name in SERVERS:
        command = compose()["services"][name]["command"]
        asked = [word for word in command if word.startswith("--")]
        done = subprocess.run(
            ["python", "-m", *command[: command.index("--host")], "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert len(asked) >= 2
        assert [word for word in asked if word not in done.stdout] == []


def test_the_workers_use_the_addresses_that_fettle_knows() -> None:
    known = {*server_addresses.PATIENCE, worker.WEBHOOK, "PREFECT_API_AUTH_STRING", "HOME"}
    known |= {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"}
    (container,) = workloads()["worker"]["containers"]
    found = {one["name"]: one.get("value") for one in container["env"]}
    in_compose = compose()["services"]["worker-1"]["environment"]
    for environ in (found, in_compose):
        assert set(environ) <= known
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            assert server_addresses.resolve(DEPLOY, {name: environ[name]}, name) is not None  # type: ignore[arg-type]  # one of the names
    mounts = [compose()["services"][f"worker-{n}"]["volumes"] for n in (1, 2)]
    assert mounts[0] != mounts[1]  # no shared folder


def test_a_dead_worker_is_started_again() -> None:
    for path in UNITS:
        assert unit(path.stem)["Restart"] == "always"
    assert all("restart" in service for service in compose()["services"].values())


def test_no_file_holds_a_secret_and_each_that_is_asked_for_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{([A-Z0-9_]+):\?\}", (DEPLOY / "compose.yaml").read_text()))
    asked |= set(
        re.findall(r"name: servers, key: (\w+)", "".join(p.read_text() for p in MANIFESTS))
    )
    assert len(asked) > 6
    assert asked <= settings()
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.name != "servers.env.example":
            assert not re.search(r"://[^\s:/]+:[^\s@$]+@", path.read_text()), path
    for line in (DEPLOY / "servers.env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        assert line.startswith("#") or not value or name == "MLFLOW_ARTIFACTS_DESTINATION"


def test_services_and_selectors_meet() -> None:
    pods = {
        doc["metadata"]["name"]: doc["spec"]["template"]["metadata"]["labels"]
        for doc in documents()
        if doc["kind"] in ("Deployment", "StatefulSet")
    }
    for doc in documents():
        spec = doc.get("spec", {})
        wanted = spec.get("selector", {}) if doc["kind"] == "Service" else {}
        wanted = (
            spec["selector"]["matchLabels"]
            if doc["kind"] in ("Deployment", "StatefulSet")
            else wanted
        )
        assert doc["metadata"]["namespace"] == "fettle"
        assert all(wanted.items() <= pods[doc["metadata"]["name"]].items() for _ in [0] if wanted)
    script = (DEPLOY / "databases.sh").read_text().split("set -eu\n")[1]
    (config,) = (doc for doc in documents() if doc["kind"] == "ConfigMap")
    assert config["data"]["databases.sh"].split("set -eu\n")[1] == script


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_fits_kubernetes_schemas(path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    newest = validator.latest_version()
    for doc in load(path):
        validator.validate(doc, newest, strict=True)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_one_that_systemd_reads(path: Path, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    text = path.read_text()
    text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text)  # what is not installed here
    text = re.sub(r"^(After|Wants)=.*\n", "", text, flags=re.M)
    name = path.name.replace("@", "@one")
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if name in line]
    assert [line for line in told if "Unknown" in line or "Failed to parse" in line] == []
