"""A params file of an earlier schema: what is refused, and how `fettle migrate` brings it up."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from former_params import OLD, ROOT, migrate, refusal

from fettle import params, params_migration
from fettle.errors import ProjectError


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the old file to be params.yaml of the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(OLD, tmp_path / "params.yaml"))


def loaded(file: Path, *overrides: str) -> params.Params:
    return params.load(file, overrides)


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_every_former_key_is_named_with_its_line_and_its_name_now(old: Path) -> None:
    assert refusal(lambda: loaded(old)) == (
        "params.yaml has 7 problems\n"
        "  params.yaml: schema: this file is of schema 1, fettle reads schema 2 now: run `fettle "
        "migrate`\n"
        "  params.yaml:43: compress.objective.on is now compress.objective.target: run `fettle "
        "migrate`\n"
        "  params.yaml:44: compress.also is now compress.constraints: run `fettle migrate`\n"
        + "".join(
            f"  params.yaml:{74 + step}: promote.steps[{step}].margin_times is now "
            f"promote.steps[{step}].margin_multiplier: run `fettle migrate`\n"
            for step in range(4)
        )
        + "Nothing was run. Fix: mend params.yaml (or the --set) and run again."
    )


def test_a_file_elsewhere_is_named_in_the_command(old: Path) -> None:
    other = old.rename(old.with_name("my photos.yaml"))
    assert f"run `fettle migrate '{other}'`\n" in refusal(lambda: loaded(other))


def test_a_former_key_hides_no_other_problem(old: Path) -> None:
    edit(old, "calibrate: auto", "calibrate: minmx")
    text = refusal(lambda: loaded(old))
    assert text.startswith("params.yaml has 8 problems\n")
    assert "export.calibrate: Input should be" in text


@pytest.mark.parametrize("number", ["1", "0", "-3", '"2"', "2.0", "true", "null", "[2]", "two"])
def test_another_number_is_refused_and_names_the_command(old: Path, number: str) -> None:
    migrate()
    edit(old, "schema: 2\n", f"schema: {number}\n")
    text = refusal(lambda: loaded(old))
    assert text.startswith("params.yaml has 1 problem\n  params.yaml:2: schema: ")
    assert "run `fettle migrate`" in text


def test_a_newer_number_is_refused_whatever_else_the_file_says(old: Path) -> None:
    edit(old, "seed: 20", "schema: 3\nseeds: 20")
    text = (
        "params.yaml is of a newer schema: got schema: 3; this fettle reads schema 2, and `fettle "
        "migrate` brings up older files only. Fix: upgrade fettle, or take the file that went with "
        "this version."
    )
    before = old.read_bytes()
    assert refusal(lambda: loaded(old)) == text
    assert refusal(migrate) == text
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("override", "former", "now"),
    [
        ("compress.also={}", "compress.also", "compress.constraints"),
        ("compress.also.macs_max=5", "compress.also", "compress.constraints"),
        ("compress={also: {macs_max: 5}}", "compress.also", "compress.constraints"),
        ("compress.objective.on=null", "compress.objective.on", "compress.objective.target"),
        (
            "compress.objective={minimise: macs, on: null}",
            "compress.objective.on",
            "compress.objective.target",
        ),
        (
            "promote.steps.2.margin_times=4",
            "promote.steps[2].margin_times",
            "promote.steps[2].margin_multiplier",
        ),
        (
            "promote.steps=[{weight_percent: 50, margin_times: 1}]",
            "promote.steps[0].margin_times",
            "promote.steps[0].margin_multiplier",
        ),
    ],
)
def test_a_set_with_a_former_key_names_the_new_one(override: str, former: str, now: str) -> None:
    assert refusal(lambda: loaded(ROOT / "params.yaml", override)) == (
        f"--set '{override}': {former} is now {now}. Fix: name {now}."
    )


def test_the_old_file_becomes_the_new_one_value_for_value(old: Path) -> None:
    said = migrate()
    assert loaded(old) == loaded(ROOT / "params.yaml")
    assert said.splitlines() == [
        "params.yaml: schema: 2 is added",
        "params.yaml: line 43: compress.objective.on is now compress.objective.target",
        "params.yaml: line 44: compress.also is now compress.constraints",
        *(
            f"params.yaml: line {74 + step}: promote.steps[{step}].margin_times is now "
            f"promote.steps[{step}].margin_multiplier"
            for step in range(4)
        ),
    ]


def test_nothing_but_the_keys_changes(old: Path) -> None:
    before = old.read_text()
    migrate()
    now = old.read_text().splitlines()
    assert now[:3] == [before.splitlines()[0], "schema: 2", "seed: 20"]
    assert now[43:45] == [
        "  objective: {minimise: latency_p50_ms, target: null}   # on: one target, or null for the "
        "best of all",
        "  constraints: {}                 # hard limits: size_bytes_max, latency_p50_ms_max, "
        "params_max, macs_max",
    ]
    pairs = zip(before.splitlines(), [now[0], *now[2:]], strict=True)
    assert sum(one != two for one, two in pairs) == 6
    comments = re.compile(r"#.*")
    assert comments.findall(old.read_text()) == comments.findall(before)


def test_a_second_time_changes_nothing(old: Path) -> None:
    migrate()
    first, stamp = old.read_bytes(), old.stat().st_mtime_ns
    assert migrate() == "params.yaml: nothing to change\n"
    assert (old.read_bytes(), old.stat().st_mtime_ns) == (first, stamp)


def test_the_files_of_today_need_no_migration() -> None:
    files = [ROOT / "params.yaml", ROOT / "dvc.yaml", *(ROOT / "examples").glob("*.yaml")]
    assert [params_migration.plan(file).changes for file in files] == [()] * 4


MINIMAL = "compress: {also: {}}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MINIMAL, "schema: 2\ncompress: {constraints: {}}\n"),
        ("{compress: {also: {}}}", "{schema: 2, compress: {constraints: {}}}"),
        ("schema: 1 # mine\n" + MINIMAL, "schema: 2 # mine\ncompress: {constraints: {}}\n"),
        ("schema: 2\n" + MINIMAL, "schema: 2\ncompress: {constraints: {}}\n"),
        ("# top\n---\n" + MINIMAL, "# top\n---\nschema: 2\ncompress: {constraints: {}}\n"),
        (
            'compress:\n  "also": {}\n  \'objective\': {"on": x}\n',
            'schema: 2\ncompress:\n  "constraints": {}\n  \'objective\': {"target": x}\n',
        ),
        (
            "compress:\r\n  also:   # keep\r\n    macs_max: 5\r\n",
            "schema: 2\r\ncompress:\r\n  constraints:   # keep\r\n    macs_max: 5\r\n",
        ),
        (
            "compress:\n  also: {}  # also: of old\nrelease: {name: 'also   # on'}\n",
            "schema: 2\ncompress:\n  constraints: {}  # also: of old\n"
            "release: {name: 'also   # on'}\n",
        ),
        (
            "promote:\n  steps:\n    - &a {weight_percent: 1, margin_times: 2}\n    - *a\n"
            "    - {<<: *a, weight_percent: 3}\n",
            "schema: 2\npromote:\n  steps:\n    - &a {weight_percent: 1, margin_multiplier: 2}\n"
            "    - *a\n    - {<<: *a, weight_percent: 3}\n",
        ),
        ("  seed: 1\n  compress: {also: }", "  schema: 2\n  seed: 1\n  compress: {constraints: }"),
        (
            "# größe\u2028\ncompress: {also: {}}",
            "# größe\u2028\nschema: 2\ncompress: {constraints: {}}",
        ),
    ],
)
def test_a_file_keeps_its_way_of_writing(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(before.encode())
    migrate(file)
    assert file.read_bytes().decode() == after
    assert "nothing to change" in migrate(file)


def test_a_byte_order_mark_the_mode_and_a_link_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "p.yaml", tmp_path / "link.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    file.chmod(0o640)
    link.symlink_to(file)
    migrate(link)
    assert file.read_bytes() == b"\xef\xbb\xbfschema: 2\ncompress: {constraints: {}}\n"
    assert (file.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\ncompress: [\n", "line 3: not valid YAML"),
        ("compress: {also: {}, also: {}}\n", "line 1: not valid YAML: got found duplicate key"),
        ("a: 1\n---\ncompress: {also: {}}\n", "not valid YAML"),
        ("- compress\n", "is no params file"),
        ("services: {web: {}}\n", "is no params file"),
        ("", "is no params file"),
        (
            "compress: {also: {}, constraints: {}}\n",
            "holds both compress.also and compress.constraints; they are one setting",
        ),
        ('compress: {"al\\x73o": {}}\n', "cannot be rewritten safely: got compress.also is now"),
        ("schema: two\n" + MINIMAL, "schema is no number of a schema: got 'two' in line 1"),
        ("schema: true\n" + MINIMAL, "schema is no number of a schema: got True in line 1"),
        ("? seed\n: 1\ncompress: {also: {}}\n", "cannot be rewritten safely"),
    ],
)
def test_what_cannot_be_rewritten_is_left_untouched(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    assert message in refusal(lambda: migrate(file))
    assert file.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


def test_one_bad_file_of_several_leaves_all_as_they_were(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(MINIMAL)
    bad.write_text("compress: [\n")
    assert "bad.yaml, line 2: not valid YAML" in refusal(lambda: migrate(good, bad))
    assert good.read_text() == MINIMAL


def test_a_file_that_cannot_be_replaced_is_whole_and_nothing_lies_beside_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    before = old.read_bytes()
    monkeypatch.setattr(Path, "replace", full)
    assert refusal(migrate) == (
        "params.yaml cannot be rewritten: got No space left on device; the new text is written "
        "beside it and takes its place; the file is as it was. Fix: make its folder writable, or "
        "free some space."
    )
    assert old.read_bytes() == before
    assert [path.name for path in old.parent.iterdir()] == ["params.yaml"]


def test_a_folder_without_params_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=r"^there is no params\.yaml in .* fettle migrate FILE"):
        migrate()
    assert "no params file at no.yaml" in refusal(lambda: migrate(Path("no.yaml")))


def test_reports_keep_the_name_they_began_with() -> None:
    objective = loaded(ROOT / "params.yaml", "compress.objective.target=x86_ort_int8").compress
    assert objective.objective.recorded() == {"minimise": "latency_p50_ms", "on": "x86_ort_int8"}
