"""MLflow registry aliases and tags: shown as the journal decided, repaired, never asked.

    challenger          the release that a rollout is about, or the newest one that waits for it
    champion            the release that serves
    previous_champion   the one before, which `fettle canary undo` brings back

`python -m fettle.adapters.mlflow_aliases FILE` does it in a process of its own, for the registry of
FETTLE_REGISTRY_URI: importing mlflow takes 2 s, in which a controller could not renew its lease.
FILE is what fettle/rollout/supervisor/actuator.py writes.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fettle.adapters.mlflow_protocols import MlflowApi
from fettle.errors import TransientError, UserError
from fettle.manifest import SHORT

CHALLENGER = "challenger"
DIGEST = "release_digest"  # the tag that flows/publish.py writes


@dataclass(frozen=True, slots=True)
class WantedAliases:
    """Which release (12 hex digits or more) each alias shall name, None for no alias; and tags.

    `tags` maps a release to what was found about it.
    """

    aliases: Mapping[str, str | None]
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of the model."""

    number: str
    release: str
    tag: str
    passed: bool


def move(client: MlflowApi, name: str, alias: str, number: str) -> None:
    """Let an alias of the model `name` point at this version: the one place where aliases move."""
    client.set_registered_model_alias(name, alias, number)


class ModelRegistry:
    """One registered model. Raises TransientError when MLflow's database does not answer."""

    def __init__(self, uri: str, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own imports warn under newer pydantic
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        self._client: MlflowApi = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._error = MlflowException
        self._name = name

    def versions(self) -> list[Version]:
        """List the registered releases, oldest first; none when the name is unknown."""
        try:
            found = self._client.search_model_versions(f"name = '{self._name}'")
        except Exception as err:  # whatever SQLAlchemy or MLflow make of a lost database
            raise TransientError("MLflow's registry does not answer", got=str(err)) from err
        made = [
            Version(str(v.version), v.tags[DIGEST][:SHORT], v.tags["bento_tag"], _passed(v.tags))
            for v in found
            if DIGEST in v.tags and "bento_tag" in v.tags
        ]
        return sorted(made, key=lambda v: int(v.number))

    def resolve(self, alias: str) -> str | None:
        """Return the release of an alias, None where it is not set."""
        try:
            version = self._client.get_model_version_by_alias(self._name, alias)
        except self._error:
            return None
        digest = version.tags.get(DIGEST)
        return digest[:SHORT] if digest else None

    def project(self, wanted: WantedAliases) -> list[str]:
        """Bring aliases and tags in step; return what was changed, nothing when all is so."""
        numbers = {version.release: version.number for version in self.versions()}
        changed = []
        for alias, release in sorted(wanted.aliases.items()):
            now = self.resolve(alias)
            if release is not None and release[:SHORT] not in numbers:
                raise UserError(
                    f"release {release[:SHORT]} is not registered as {self._name}",
                    rule="aliases name registered versions",
                    fix="run `fettle run`, which registers it",
                )
            if release is None and now is not None:
                self._client.delete_registered_model_alias(self._name, alias)
            elif release is not None and now != release[:SHORT]:
                move(self._client, self._name, alias, numbers[release[:SHORT]])
            else:
                continue
            changed.append(f"{alias}={release and release[:SHORT]}")
        for release, tags in sorted(wanted.tags.items()):
            if release[:SHORT] in numbers:
                for key, value in sorted(tags.items()):
                    self._client.set_model_version_tag(
                        self._name, numbers[release[:SHORT]], key, value[:4000]
                    )
        return changed


def next_challenger(versions: list[Version], done: str) -> str | None:
    """Return the newest release after `done` whose offline gate passed, None when there is none."""
    order = [version.release for version in versions]
    after = versions[order.index(done) + 1 :] if done in order else []
    return next((version.release for version in reversed(after) if version.passed), None)


def _passed(tags: Mapping[str, str]) -> bool:
    return tags.get("gate") == "passed"


def main() -> None:
    """Project the aliases that a file states."""
    uri, (path,) = os.environ["FETTLE_REGISTRY_URI"], sys.argv[1:]
    doc = json.loads(Path(path).read_text())
    registry = ModelRegistry(uri, doc["model"])
    aliases = dict(doc["aliases"])
    if "over" in doc:  # a rollout is over: the alias goes on to the release that waited for it
        aliases[CHALLENGER] = next_challenger(registry.versions(), doc["over"])
    changed = registry.project(WantedAliases(aliases, doc["tags"]))
    sys.stdout.write("; ".join(changed) or "nothing changed")


if __name__ == "__main__":
    main()
