"""Hold the page: one file that needs no network, escapes what it shows, and is whole."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_project import TARGETS
from fake_tree import Tree

from fettle.report import html_page, report_facts
from fettle.report.html_page import CONTENTS

MOST_BYTES = 3_000_000
VOID = {"meta", "link", "img", "br", "line", "rect", "circle", "polyline"}


class Reader(HTMLParser):
    """Collect tags with their attributes and the visible text; check that tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rendered(project: Path, out: Path) -> str:
    html_page.render(report_facts.collect(project), out / "report" / "index.html")
    return (out / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def text(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(finished, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    return Reader(text)


def test_every_tag_is_closed_in_order(read: Reader) -> None:
    assert read.open == []
    assert len(read.tags) > 300


def test_the_page_loads_nothing(text: str, read: Reader) -> None:
    assert not re.search(r"https?:", text)
    assert not re.search(r"@import|url\(", text)
    banned = {"script", "iframe", "object", "embed", "base", "form"}
    assert banned.isdisjoint(tag for tag, _ in read.tags)
    loaded = [a.get("src") or "" for _, a in read.tags if "src" in a]
    assert loaded
    assert all(source.startswith("data:image/") for source in loaded)
    links = [a["href"] or "" for _, a in read.tags if "href" in a]
    assert all(link == "data:," or link.startswith("#") for link in links)
    assert not [name for _, a in read.tags for name in a if name.startswith("on")]


def test_every_link_of_the_contents_leads_to_a_section(read: Reader) -> None:
    ids = [a["id"] for tag, a in read.tags if tag == "section"]
    links = [(a["href"] or "").removeprefix("#") for tag, a in read.tags if tag == "a"]
    assert links == ids == [name for name, _ in CONTENTS if name != "missing"]


def test_names_and_reasons_cannot_break_out(text: str, read: Reader) -> None:
    assert "<b>&<" not in text
    assert "<script" not in text
    assert "cannot be decoded: <script>alert(1)</script>" in read.text
    assert "taken for <b>&" in " ".join(a.get("alt") or "" for _, a in read.tags)


def test_every_picture_says_in_words_what_it_shows(read: Reader) -> None:
    labels = [a.get("aria-label") or "" for tag, a in read.tags if tag == "svg"]
    assert len(labels) == 14
    assert all(len(label) > 20 for label in labels)
    assert all(a.get("alt") for tag, a in read.tags if tag == "img")


def test_the_header_gives_the_sentence_and_the_headline_numbers(read: Reader) -> None:
    assert "released Ships x86_ort_int8: 9.61x fewer parameters" in read.text
    for tile in (
        "fewer parameters 9.61x exact",
        "smaller file 31.2x exact",
        "lower latency 6.77x 95 %: 6.45 to 7.10",
        "accuracy drop on test, points +0.2 95 %: -0.3 to +0.8; n = 899",
    ):
        assert tile in read.text


def test_the_page_shows_what_every_stage_found(read: Reader) -> None:
    for said in (
        "x86_openvino_fp32 refused 98.1 [95.0, 99.6]",
        "Choice : the fastest of 3 that may ship",
        "accuracy drops by 0.0022 on test, within the budget of 0.01",
        "seven <b>& 4 1.3 %",
        "2 of 3 test images are wrong. The float model gets 1 of them right (marked)",
        "float model 78,000 1,080,000 98.9",
        "kept <all>; head kept whole: protected",
        "Dashed lines: from epoch 2 layers are unfrozen group by group, from epoch 4 all layers",
        "All 12 layers in numbers",
        "every image decodes 1 broken set aside",
        "60 images checked, 1 put in quarantine.",
        "ingest",
        "git cccccccccccc + changes",
        "Bento digits:0123456789ab",
        "fettle serve digits:0123456789ab",
        f"git checkout {'c' * 40} fettle run",
    ):
        assert said in read.text, said


def test_the_worst_mistakes_begin_with_those_the_float_model_got_right(read: Reader) -> None:
    alts = [a["alt"] or "" for tag, a in read.tags if tag == "img"]
    wrong = [alt for alt in alts if alt.startswith("test image")]
    assert wrong == [
        "test image 0012, <b>& taken for seven",
        "test image 0027, seven taken for <b>&",
    ]


def test_samples_come_from_training_images_that_passed(read: Reader) -> None:
    alts = [a["alt"] or "" for tag, a in read.tags if tag == "img"]
    assert [alt for alt in alts if alt == "sample of class <b>&"] == ["sample of class <b>&"] * 8
    # 12 of 20 images a class are for training, and row 0000 is in quarantine
    assert "<b>& 11 4 4" in read.text


def test_equal_facts_give_equal_bytes(finished: Path, text: str, tmp_path: Path) -> None:
    assert rendered(finished, tmp_path) == text


def test_the_page_is_small(text: str) -> None:
    assert len(text.encode()) < MOST_BYTES / 20


def test_an_unfinished_run_says_what_is_missing_and_why(tree: Tree, tmp_path: Path) -> None:
    evaluated = [f"evaluate@{name}" for name in TARGETS]
    tree.drop("finetune", "compress", "verdict", "select", "package", *evaluated)
    (tree.root / ".fettle" / "last.json").unlink()
    read = Reader(rendered(tree.root, tmp_path))
    assert "unfinished The run is not finished: no verdict yet." in read.text
    assert "Not measured: verdict has not run." in read.text
    assert "No target was evaluated yet." in read.text
    assert "No training curve: the model was taken as it is." not in read.text
    assert "No training curve: finetune has not run." in read.text
    assert "compression.params_ratio verdict has not run" in read.text
    assert "Bento not there yet" in read.text


def test_data_that_failed_validation_is_reported_too(tree: Tree, tmp_path: Path) -> None:
    everything = [name for name in tree.digests if name != "ingest"]
    tree.drop(*everything)
    text = "too many broken images <of 60>"
    error = tree.root / "records" / "validate.error.json"
    error.write_text(f'{{"kind": "user", "text": "{text}"}}')
    read = Reader(rendered(tree.root, tmp_path))
    assert f"validate failed {text}" in read.text
    assert "Not measured: validate failed." in read.text


def test_a_gate_that_did_not_pass_is_said_first(finished: Path, tmp_path: Path) -> None:
    known = report_facts.collect(finished)
    verdict = replace(known.verdict, passed=False, reasons=("accuracy drops by <0.03>",))
    html_page.render(replace(known, verdict=verdict), tmp_path / "index.html")
    read = Reader((tmp_path / "index.html").read_text())
    assert "gate not passed The gate did not pass: accuracy drops by <0.03>." in read.text


def test_a_file_without_mistakes_is_said_to_have_none(tree: Tree, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tree.folder("verdict") / "predictions.parquet"
    pq.write_table(pq.read_table(path).slice(2), path)
    tree.seal("verdict", tree.facts("verdict"), tree.measures("verdict"))
    read = Reader(rendered(tree.root, tmp_path))
    assert "The shipped file makes no mistake on the 1 test images." in read.text


def test_the_title_is_plain_text(text: str) -> None:
    title = re.search(r"<title>(.*?)</title>", text)
    assert title
    assert html.unescape(title[1]) == "digits: released"
