"""Whose servers a run is told to: what wins, what is refused, and what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fettle import project, server_addresses
from fettle.errors import ProjectError
from fettle.local_settings import SERVERS, local_settings, set_local
from fettle.project import Project
from fettle.server_addresses import Variable, masked

PREFECT, TRACKING, REGISTRY = "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"


def setting(root: Path, text: str) -> Path:
    path = root / "inputs" / "local.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def urls(root: Path, environ: dict[str, str]) -> list[str | None]:
    found = [
        server_addresses.resolve(root, environ, name) for name in (PREFECT, TRACKING, REGISTRY)
    ]
    return [one.url if one else None for one in found]


def test_the_environment_goes_before_the_setting_and_the_setting_before_the_own(
    tmp_path: Path,
) -> None:
    assert urls(tmp_path, {}) == [None, None, None]
    setting(
        tmp_path, "prefect_api_url: http://team:4200/api\nmlflow_tracking_uri: http://team:5000"
    )
    assert urls(tmp_path, {}) == ["http://team:4200/api", "http://team:5000", "http://team:5000"]
    told = {PREFECT: "https://ci:4200/api", TRACKING: " ", REGISTRY: "http://registry"}
    assert urls(tmp_path, told) == ["https://ci:4200/api", "http://team:5000", "http://registry"]
    (first, second) = server_addresses.all_of(tmp_path, {PREFECT: "https://ci:4200/api"})
    assert (first.place, second.place) == ("the environment", "inputs/local.yaml")


def test_a_project_without_any_has_its_own_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Project(tmp_path, tmp_path)
    own = f"sqlite:///{tmp_path}/.fettle/mlflow.db"
    assert (home.tracking_uri, home.registry_uri) == (own, own)
    monkeypatch.setenv(REGISTRY, "http://registry:5000")
    assert (home.tracking_uri, home.registry_uri) == (own, "http://registry:5000")


def test_what_fettle_puts_into_its_processes_is_not_taken_for_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fettle that a run of another project starts, or the Python API in one process."""
    one, two = (Project(tmp_path / name, tmp_path / name) for name in ("one", "two"))
    for name, value in project.environment(one).items():
        monkeypatch.setenv(name, value)
    assert two.tracking_uri == f"sqlite:///{tmp_path}/two/.fettle/mlflow.db"
    monkeypatch.setenv(TRACKING, "http://team:5000")
    assert two.tracking_uri == "http://team:5000"


WRONG: list[tuple[Variable, str, str]] = [
    (PREFECT, "http://team:4200", "http://team:4200"),
    (PREFECT, "team:4200/api", "team:4200/api"),
    (PREFECT, "http://:4200/api", "http://:4200/api"),
    (PREFECT, "http://team:port/api", "http://team:port/api"),
    (PREFECT, "sqlite:///prefect.db", "sqlite:///prefect.db"),
    (PREFECT, "http://me:s3cret@team:4200/api", "http://***@team:4200/api"),
    (TRACKING, "./mlruns", "./mlruns"),
    (TRACKING, "file:///srv/mlruns", "file:///srv/mlruns"),
    (TRACKING, "/srv/mlruns", "/srv/mlruns"),
    (TRACKING, "databricks", "databricks"),
    (TRACKING, "http://", "http://"),
    (TRACKING, "http://a b", "http://a b"),
    (REGISTRY, "s3://bucket/models", "s3://bucket/models"),
    (TRACKING, "ftp://me:s3cret@host/x?token=s3cret", "ftp://***@host/x?token=***"),
]


@pytest.mark.parametrize(("variable", "url", "shown"), WRONG)
def test_an_address_that_is_none_is_refused_by_its_name(
    tmp_path: Path, variable: Variable, url: str, shown: str
) -> None:
    with pytest.raises(ProjectError) as caught:
        server_addresses.resolve(tmp_path, {variable: url}, variable)
    assert str(caught.value).startswith(f"{variable} names no server: got '{shown}'; it is ")
    assert "s3cret" not in str(caught.value)
    setting(tmp_path, f"{variable.lower()}: '{url}'")
    with pytest.raises(ProjectError, match=f"{variable.lower()} in inputs/local.yaml names no"):
        server_addresses.resolve(tmp_path, {}, variable)


def test_a_folder_of_files_is_refused_in_full(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        server_addresses.resolve(tmp_path, {TRACKING: "file:///srv/mlruns"}, TRACKING)
    assert str(caught.value) == (
        "MLFLOW_TRACKING_URI names no server: got 'file:///srv/mlruns'; it is a server (http, "
        "https) or a database (sqlite, postgresql, mysql, mssql); a folder of files is none that "
        "several may write to. Fix: set it to an address like http://HOST:5000, or take it out: "
        "the project then keeps its own."
    )


@pytest.mark.parametrize(
    "url",
    ["http://h", "https://u:p@h/mlflow", "postgresql://u:p@h/db", "postgresql+psycopg2://h/db"],
)
def test_servers_and_databases_are_taken(tmp_path: Path, url: str) -> None:
    found = server_addresses.resolve(tmp_path, {TRACKING: url}, TRACKING)
    assert found is not None
    assert found.url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://team:5000/x", "http://team:5000/x"),
        ("http://me:pw@team:5000/x", "http://***@team:5000/x"),
        ("https://token@team", "https://***@team"),
        ("https://team/a?key=pw&b=c#pw", "https://team/a?key=***&b=***"),
        ("postgresql://me:pw@db/x?password=pw", "postgresql://***@db/x?password=***"),
        ("http://me:pw@[::1/x?k=pw", "http://***@[::1/x?k=***"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert server_addresses.without_secrets(f"GET {url}: no", [url]) == f"GET {shown}: no"


def test_the_addresses_survive_a_new_path_and_stay_as_hidden_as_they_were(tmp_path: Path) -> None:
    path = setting(tmp_path, "mlflow_tracking_uri: http://me:pw@team:5000\n")
    path.chmod(0o600)
    set_local(tmp_path, "data", tmp_path / "photos")
    kept = local_settings(tmp_path)
    assert kept["mlflow_tracking_uri"] == "http://me:pw@team:5000"
    assert kept["data"] == str(tmp_path / "photos")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_mistyped_key_is_named_without_its_address(tmp_path: Path) -> None:
    setting(tmp_path, "mlflow_traking_uri: http://me:pw@team:5000\n")
    with pytest.raises(ProjectError) as caught:
        local_settings(tmp_path)
    assert ": got mlflow_traking_uri; it is UTF-8 YAML" in str(caught.value)
    assert ", ".join(SERVERS) in str(caught.value)
    assert "pw" not in str(caught.value)
