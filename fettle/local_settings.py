"""Resolve what lies outside the tree: inputs/local.yaml holds the paths of this machine, untracked;
and, written by hand, the addresses of a team's servers (fettle/server_addresses.py).

`--data` and `--model` write it. Where the params name another path, the command line wins if it was
given after they did (`data_instead_of` keeps what they said then); else nobody can tell which of
the two is meant, and that is an error. Apart from fettle/project.py so that ingest can ask without
depending on the rest of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from fettle.errors import DataError, ModelError, ProjectError

# The keys of inputs/local.yaml, each with the parameter that names the same thing.
PARAMETER = {"data": "ingest.options.path", "model": "finetune.options.path"}
OVER = "{}_instead_of"
SERVERS = ("prefect_api_url", "mlflow_tracking_uri", "mlflow_registry_uri")
_WRONG = {"data": DataError, "model": ModelError}


def local_settings(tree: Path) -> Mapping[str, str]:
    """Read inputs/local.yaml: the paths of this machine, e.g. {data: /data/photos}.

    Raises ProjectError when it is no mapping of the known keys to text.
    """
    path = tree / "inputs" / "local.yaml"
    if not path.is_file():
        return {}
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    known = [*PARAMETER, *map(OVER.format, PARAMETER), *SERVERS]
    try:
        settings = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as err:
        raise _broken(path, str(err).splitlines()[0]) from err
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise _broken(path, f"a {type(settings).__name__}")
    for key, value in settings.items():
        if key not in known or not isinstance(value, str | None):
            # an address, whatever its key is called, may hold a token
            raise _broken(path, f"{key}: {value!r}" if "://" not in str(value) else f"{key}")
    return {str(key): value for key, value in settings.items() if value}


def _broken(path: Path, got: str) -> ProjectError:
    return ProjectError(
        f"{path} cannot be read",
        got=got,
        rule=f"it is UTF-8 YAML that gives the paths of {' and '.join(PARAMETER)}, and the "
        f"addresses {', '.join(SERVERS)}; nothing else",
        fix="mend it, or delete it and give --data or --model again",
    )


def set_local(tree: Path, key: str, path: Path, *, instead_of: str | None = None) -> None:
    """Remember a path of this machine in inputs/local.yaml, and what the params say beside it."""
    settings = {**local_settings(tree), key: str(path.resolve())}
    settings.pop(OVER.format(key), None)
    if instead_of is not None:
        settings[OVER.format(key)] = instead_of
    write_settings(tree, settings)


def write_settings(tree: Path, settings: Mapping[str, str]) -> None:
    """Write inputs/local.yaml in one step; who may read it stays so (an address has a token)."""
    path = tree / "inputs" / "local.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.is_file() else 0o644
    text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in sorted(settings.items()))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, mode), "w") as handle:
        handle.write(text)
    temporary.replace(path)


def conflicts(settings: Mapping[str, str], key: str, named: str | None, tree: Path) -> bool:
    """Tell whether the params name another path than inputs/local.yaml, and did not when it was
    written.
    """
    given = settings.get(key)
    if given is None or named is None or settings.get(OVER.format(key)) == named:
        return False
    places = {_resolved(base, named, key) for base in bases(tree)}
    return absolute(tree, given, key) not in places


def choose(tree: Path, key: str, named: str | None) -> str | None:
    """Return the path of the data or of the model: of inputs/local.yaml, else what is `named`.

    Raises ProjectError when they name different places.
    """
    settings = local_settings(tree)
    if conflicts(settings, key, named, tree):
        raise ProjectError(
            f"two places name the {key}",
            got=f"inputs/local.yaml says {settings[key]}, {PARAMETER[key]} says {named}",
            rule=f"inputs/local.yaml is what --{key} wrote; the params name another path since",
            fix=f"take the params' by deleting the line `{key}` from {tree / 'inputs/local.yaml'}, "
            f"or confirm the other with `fettle run --{key} {settings[key]}`",
        )
    return settings.get(key) or named


def bases(tree: Path) -> list[Path]:
    """List the folders that a relative path may start from: the project's, and the tree."""
    return [Path(os.environ.get("FETTLE_ROOT", tree)), tree]


def absolute(tree: Path, given: str, key: str = "data") -> Path:
    """Resolve a path that starts at the project's folder; raises as `expand` does."""
    return _resolved(bases(tree)[0], given, key)


def expand(given: str, key: str) -> Path:
    """Put a user's home folder in the place of `~` or `~NAME`.

    Raises DataError (`key` data) or ModelError (`key` model) when there is no such user.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError as err:
        raise _WRONG[key](
            f"the path of the {key} begins with a home folder that is not here",
            got=given,
            rule="~ is the home folder of who runs this, ~NAME that of the user NAME",
            fix="write the path out, or put ./ before a folder whose name begins with ~",
        ) from err


def _resolved(base: Path, given: str, key: str) -> Path:
    path = base / expand(given, key)
    try:
        return path.resolve()
    except RuntimeError as err:
        raise _WRONG[key](
            f"the path of the {key} leads in a circle",
            got=given,
            rule="a symbolic link on it points back at itself",
            fix="mend the link, or name what it should lead to",
        ) from err


def location(tree: Path, options: object) -> Path | None:
    """Resolve where the data lies: inputs/local.yaml first, then the source's `path` option.

    Raises ProjectError when they name different places.
    """
    given = choose(tree, "data", getattr(options, "path", None))
    return None if given is None else absolute(tree, given)
