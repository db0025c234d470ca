"""Hold every file of fettle/data/checks to what validation relies on; no Great Expectations.

That each expectation exists and finds its rows is tested with the tool in tests/checks.
"""

from __future__ import annotations

import json
import string
import subprocess
import sys
from collections import Counter

import pytest

from fettle import plugins
from fettle.data.checks import CheckedTable, CheckLimits, Failing, Rule
from fettle.data.image_table import SCHEMA, SPLITS

NAMES = plugins.names("checks")
LIMITS = CheckLimits(
    labels=("cat", "dog"),
    class_images_min=20,
    class_imbalance_max=3.0,
    size_px_min=8,
    size_px_max=512,
    null_max_fraction=0.0,
)
DERIVED = {"copy_of", "conflict", "label_given", "group_gap"}
COLUMNS = {
    CheckedTable.IMAGES: {name for name in SCHEMA.names if name != "bytes"} | DERIVED,
    CheckedTable.CLASSES: {"label", "images", "times_smallest", *SPLITS},
}


def rules_of(name: str) -> list[Rule]:
    found: list[Rule] = plugins.resolve("checks", name, where="checks").rules(LIMITS)
    return found


RULES = [rule for name in NAMES for rule in rules_of(name)]
EACH = pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])


def test_the_nine_checks_are_found() -> None:
    assert len(NAMES) == 9
    about_images = ["duplicates", "labels", "modes", "nulls", "readable", "schema", "sizes"]
    assert ["balance", *about_images, "values"] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_check_states_at_least_one_rule_and_what_it_is_about(name: str) -> None:
    assert rules_of(name)
    assert plugins.summary("checks", name).endswith(".")


def test_rule_names_are_unique() -> None:
    assert [name for name, n in Counter(rule.name for rule in RULES).items() if n > 1] == []


def test_no_two_rules_are_the_same_expectation() -> None:
    """A suite of Great Expectations drops one that equals an earlier one without a word."""
    texts = []
    for rule in RULES:
        arguments = dict(rule.arguments)
        if arguments.get("mostly") == 1:
            del arguments["mostly"]  # the default
        texts.append(f"{rule.table} {rule.expectation} {json.dumps(arguments, sort_keys=True)}")
    assert [text for text, n in Counter(texts).items() if n > 1] == []


@EACH
def test_a_rule_is_a_sentence_without_its_full_stop(rule: Rule) -> None:
    assert len(rule.says) > 20
    assert not rule.says.endswith(".")
    assert not rule.fix.endswith(".")


@EACH
def test_what_sets_rows_aside_gives_a_reason_and_what_stops_a_next_step(rule: Rule) -> None:
    if rule.failing is Failing.QUARANTINE:
        assert rule.reason
        assert rule.table is CheckedTable.IMAGES
    else:
        assert rule.fix


@EACH
def test_a_reason_names_only_columns_that_its_table_has(rule: Rule) -> None:
    named = {field for _, field, _, _ in string.Formatter().parse(rule.reason) if field}
    assert named <= COLUMNS[rule.table]


@EACH
def test_a_rule_looks_at_columns_that_its_table_has(rule: Rule) -> None:
    keys = ("column", "column_A", "column_B")
    named = {str(rule.arguments[key]) for key in keys if key in rule.arguments}
    assert named <= COLUMNS[rule.table]


def test_importing_every_check_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom fettle import plugins\n"
        f"for name in {NAMES}: plugins.resolve('checks', name, where='x')\n"
        "heavy = {'great_expectations', 'pandas', 'torch', 'sklearn'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
