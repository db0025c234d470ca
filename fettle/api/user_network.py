"""User network: which family a model is of, and a network in memory as files of the project.

A torch module is pickled by value where its class lies in a notebook (cloudpickle), beside a module
that reads it back: the family torch_module then treats it as any network of the user's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fettle import manifest, plugins
from fettle.errors import ModelError

_RULE = (
    "a model is the name of a family, {family: …, options: …}, 'module:function' that builds one, "
    "the path of an ONNX file, or a torch module"
)
ENTRY = "fettle_given_network"
_SOURCE = '''"""The network that fettle.compress was given; digest {digest}."""

from pathlib import Path

import cloudpickle


def build():
    return cloudpickle.loads((Path(__file__).parent / "{file}").read_bytes())
'''


@dataclass(frozen=True, slots=True)
class FamilyChoice:
    """What `finetune` says of the model; `trains` is False for a finished ONNX file."""

    family: str
    options: Mapping[str, object] = field(default_factory=dict)
    trains: bool = True


def choose(model: object, project: Path) -> FamilyChoice:
    """Return the family of `model`; a torch module is written into `project` first.

    Raises ModelError for what is no model.
    """
    if isinstance(model, Mapping):
        unknown = set(model) - {"family", "options"}
        if unknown or not isinstance(model.get("family"), str):
            raise ModelError("the model has other keys", got=str(dict(model)), rule=_RULE)
        return FamilyChoice(str(model["family"]), dict(model.get("options") or {}))
    if isinstance(model, Path) or (isinstance(model, str) and model.lower().endswith(".onnx")):
        path = Path(model).expanduser().resolve()
        if not path.is_file() or path.suffix.lower() != ".onnx":
            raise ModelError("there is no ONNX file there", got=str(path), rule=_RULE)
        return FamilyChoice("onnx_file", {"path": str(path)}, trains=False)
    if isinstance(model, str):
        return _named(model)
    if hasattr(model, "state_dict") and hasattr(model, "forward"):
        return FamilyChoice("torch_module", {"entry": f"{_write(model, project)}:build"})
    raise ModelError("this is no model", got=type(model).__name__, rule=_RULE)


def _named(name: str) -> FamilyChoice:
    head, colon, _ = name.partition(":")
    if colon and head not in plugins.names("families"):
        return FamilyChoice("torch_module", {"entry": name})
    return FamilyChoice(name)


def _write(model: object, project: Path) -> str:
    """Write the network and the module that reads it; return the module's name."""
    import cloudpickle

    try:
        data = cloudpickle.dumps(model)
    except Exception as err:  # the user's objects: anything may come out
        raise ModelError(
            "the torch module cannot be pickled",
            got=f"{type(err).__name__}: {err}",
            rule="the stages run in processes of their own, and read it from a file",
            fix="give a function that builds it instead, as 'module:function'",
        ) from err
    file = project / f"{ENTRY}.pkl"
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    # the digest in the source is what makes a run with other weights a new one
    manifest.write_text(project / f"{ENTRY}.py", _SOURCE.format(digest=digest, file=file.name))
    return ENTRY
