"""The datasheet page in a real browser: seen, counted, driven by keyboard, and judged by axe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sheets import full_size

from cube import open_cube
from cube.catalog.page import PAGE, datasheet
from cube.format.layout import class_word

pytestmark = pytest.mark.judges

SCREENS = list(product((390, 1440), ("light", "dark")))
PHONE, WIDE = 390, 1440


@dataclass
class Seen:
    """A page, and what it did."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def count(self) -> tuple[int, int]:
        """Return scenes and patches as the page says them."""
        match = re.fullmatch(r"([\d,]+) scenes?, ([\d,]+) patch(es)?", self.page.inner_text("#count"))
        assert match
        return int(match[1].replace(",", "")), int(match[2].replace(",", ""))

    def focused(self) -> str:
        """Return the id of the element that has the focus, or else its label."""
        told = "const it = document.activeElement; return it.id || it.getAttribute('aria-label') || it.value || it.tagName"
        return str(self.page.evaluate(f"() => {{ {told} }}"))

    def tab_to(self, name: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(80):
            self.page.keyboard.press("Tab")
            if self.focused() == name:
                return
        raise AssertionError(f"Tab does not lead to {name}")


@contextmanager
def looking(browser: Browser, url: str, *, width: int = WIDE, **settings: Any) -> Iterator[Seen]:
    """Open a page and note every request and every complaint."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
    page = context.new_page()
    seen = Seen(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("requestfailed", lambda request: seen.complaints.append(f"failed: {request.url}"))
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(url)
    yield seen
    context.close()


@pytest.fixture(scope="module")
def stac(demo: Path) -> Path:
    return demo / "demo.stac"


@pytest.fixture(scope="module")
def url(stac: Path, serve: Callable[[Path], str]) -> str:
    """The page on a web server, some folders below its root."""
    return f"{serve(stac.parent.parent)}/{stac.parent.name}/{stac.name}/{PAGE}"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, stac: Path) -> Path:
    """Folder of a page of 252 scenes, with a picture for each modality of each."""
    folder = tmp_path_factory.mktemp("large")
    collection, items = full_size()
    (folder / PAGE).write_bytes(datasheet(collection, items)[PAGE])
    (folder / "overviews").mkdir()
    for item in items.values():
        for key, asset in item["assets"].items():
            picture = next((stac / "overviews").glob(f"*-{key.removeprefix('overview-')}.png"))
            (folder / "overviews" / Path(asset["href"]).name).write_bytes(picture.read_bytes())
    return folder


# Seen


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_page_fits_and_axe_finds_nothing(browser: Browser, url: str, width: int, scheme: Any, tmp_path: Path) -> None:
    with looking(browser, url, width=width, color_scheme=scheme) as seen:
        page = seen.page
        page.locator("#detail").scroll_into_view_if_needed()
        for picture in page.locator("#detail img").all():
            picture.scroll_into_view_if_needed()
            expect(picture).to_have_js_property("complete", True)
            assert picture.evaluate("image => image.naturalWidth") > 0
        page.screenshot(path=tmp_path / f"page-{width}-{scheme}.png", full_page=True)
        print(f"screenshot: {tmp_path}/page-{width}-{scheme}.png")
        assert page.locator("#detail img").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for summary in page.locator("summary").all():
            summary.click()
        assert violations(page) == []
        assert seen.complaints == []


def violations(page: Page) -> list[tuple[str, str, str]]:
    """Return everything that axe objects to, serious or not."""
    found = Axe().run(page).response["violations"]
    return [(item["id"], item["impact"], node["html"]) for item in found for node in item["nodes"]]


def test_axe_sees_what_is_wrong(browser: Browser, url: str) -> None:
    with looking(browser, url) as seen:
        seen.page.evaluate("document.querySelector('#detail img').removeAttribute('alt')")
        seen.page.evaluate("document.querySelector('#mostly').removeAttribute('id')")
        assert {name for name, _, _ in violations(seen.page)} >= {"image-alt", "select-name"}


def test_bare_documents_give_a_page_without_holes(browser: Browser, tmp_path: Path) -> None:
    """SEN1-2 has no place on Earth; other documents may say next to nothing."""
    whole, items = full_size("sen1-2")
    nowhere = {path: {**item, "bbox": None, "geometry": None, "assets": {}} for path, item in items.items()}
    bare = {"items/a.json": {"id": "a", "properties": {}, "assets": {}}}
    half = {"items/a.json": {"id": "a", "properties": {"patchcube:season": "fall", "patchcube:patches": 1}}}
    cases = {"nowhere": (whole, nowhere), "bare": ({}, bare), "half": ({"patchcube:stored_bytes": 5}, half), "empty": ({}, {})}
    for name, documents in cases.items():
        (tmp_path / f"{name}.html").write_bytes(datasheet(*documents)[PAGE])
        with looking(browser, f"file://{tmp_path}/{name}.html") as seen:
            assert not re.search(r"undefined|NaN\b(?! values)|null|\[object", seen.page.inner_text("body").replace("NaN\t", ""))
            assert seen.page.locator("#map").count() == 0
            assert seen.page.locator("#list li").count() == len(documents[1])
            targets = seen.page.eval_on_selector_all("nav a", "links => links.map(link => link.getAttribute('href').slice(1))")
            assert targets == seen.page.eval_on_selector_all("main > section", "parts => parts.map(part => part.id)")
            assert violations(seen.page) == []
            assert seen.complaints == []


def test_without_javascript_the_page_says_where_the_data_are(browser: Browser, url: str) -> None:
    with looking(browser, url, java_script_enabled=False) as seen:
        assert "Made scenes" in seen.page.inner_text("h1")
        assert "collection.json" in seen.page.inner_text("main")


# Asks nobody else


@pytest.mark.parametrize("place", ["web", "folder"])
def test_no_request_leaves_the_place(browser: Browser, stac: Path, url: str, place: str) -> None:
    base = url.removesuffix(PAGE) if place == "web" else f"file://{stac}/"
    with looking(browser, base + PAGE) as seen:
        for option in seen.page.locator("#list li").all():
            option.click()
            for picture in seen.page.locator("#detail img").all():
                expect(picture).to_have_js_property("complete", True)
        near = [request for request in seen.requests if not request.startswith("data:")]
        assert {request.removeprefix(base).split("/")[0] for request in near} == {PAGE, "overviews"}
        assert len(near) == 1 + 5 * 3
        assert seen.complaints == []


def test_what_is_not_on_the_page_may_not_run(browser: Browser, url: str) -> None:
    with looking(browser, url) as seen:
        seen.page.evaluate(
            """() => {
            const made = document.createElement("script"); made.textContent = "window.ran = true"; document.body.append(made);
            const image = document.createElement("img"); image.src = "https://example.org/a.png"; document.body.append(image);
            }"""
        )
        assert seen.page.evaluate("window.ran") is None
        assert len([text for text in seen.complaints if "Content Security Policy" in text]) == 2
        assert "failed: https://example.org/a.png" in seen.complaints


# Counts


def patches_of(demo: Path) -> list[tuple[str, str, str, int]]:
    """Return season, split, most frequent class and scene of every patch, counted from the cube's pixels."""
    cube = xr.open_zarr(demo / "demo.zarr", chunks=None)
    classes = cube["lc"].sel(lc_band="IGBP").values.reshape(cube.sizes["patch"], -1)
    most = [int(np.bincount(pixels).argmax()) for pixels in classes]
    words = dict(zip(cube["IGBP_code"].values.tolist(), cube["IGBP_code"].attrs["flag_meanings"].split(), strict=True))
    columns = cube["season"].values.tolist(), cube["split"].values.tolist(), [words[code] for code in most]
    return list(zip(*columns, cube["scene"].values.tolist(), strict=True))


def table_of(stac: Path) -> list[tuple[str, str, str, int]]:
    """Return the same from the catalog's table of patches."""
    assets = json.loads((stac / "collection.json").read_bytes())["assets"].values()
    (href,) = [asset["href"] for asset in assets if asset["type"] == "application/vnd.apache.parquet"]
    columns = [f"patchcube:{name}" for name in ("season", "split", "class", "scene")]
    return [tuple(row.values()) for row in pq.read_table(stac / href, columns=columns).to_pylist()]


def filtered(demo: Path, page: Page) -> list[tuple[str, int]] | None:
    """Return season and scene of the patches that the filter chooses which the page shows; None where it shows none."""
    shown = page.locator("#where code").all_inner_texts()
    if not shown and page.locator("#list li:visible").count() == 0:
        return None
    chosen = open_cube(str(demo / "demo.zarr"), where=shown[0] if shown else None)
    return sorted(zip(chosen["season"].values.tolist(), chosen["scene"].values.tolist(), strict=True))


def test_filters_count_what_is_in_the_cube_and_in_the_table(browser: Browser, demo: Path, stac: Path, url: str) -> None:
    rows = patches_of(demo)
    assert sorted(table_of(stac)) == sorted(rows)
    with looking(browser, url) as seen:
        page = seen.page
        assert seen.count() == (len({(row[0], row[3]) for row in rows}), len(rows))
        titles = page.locator("#mostly option").all_inner_texts()
        seasons, splits = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
        assert {class_word(title) for title in titles[1:]} == {row[2] for row in rows}
        for chosen, split, title in product([*([name] for name in seasons), seasons[:2], seasons], [*splits, None], titles):
            for name in seasons:
                page.locator(f"input[value={name}]").set_checked(name in chosen)
            for name in splits:
                page.locator(f"input[value={name}]").set_checked(split in (name, None))
            page.select_option("#mostly", label=title)
            kept = [
                row
                for row in rows
                if row[0] in chosen and split in (row[1], None) and (title == "any" or row[2] == class_word(title))
            ]
            assert seen.count() == (len({(row[0], row[3]) for row in kept}), len(kept)), (chosen, split, title)
            assert filtered(demo, page) == (sorted((row[0], row[3]) for row in kept) if kept else None), (chosen, split, title)
            assert page.locator("#list li:visible").count() == page.locator(".place:not(.gone)").count() == seen.count()[0]
        page.click("#reset")
        expect(page.locator("#count")).to_contain_text(f"{len(rows)} patches")


def test_labels_of_patches_choose_what_filters_choose(browser: Browser, demo: Path, stac: Path, url: str) -> None:
    columns = ["patchcube:season", "patchcube:scene", "patchcube:label10"]
    rows = [tuple(row.values()) for row in pq.read_table(stac / "items.parquet", columns=columns).to_pylist()]
    with looking(browser, url) as seen:
        page = seen.page
        titles = page.locator("#label option").all_inner_texts()
        assert set(titles[1:]) == {row[2] for row in rows}
        for title in titles[1:]:
            page.select_option("#mostly", index=1)
            page.select_option("#label", label=title)
            assert page.input_value("#mostly") == ""
            kept = [row[:2] for row in rows if row[2] == title]
            assert seen.count() == (len(set(kept)), len(kept))
            assert filtered(demo, page) == sorted(kept)
        page.select_option("#mostly", index=1)
        assert page.input_value("#label") == ""
        page.click("#reset")
        expect(page.locator("#count")).to_contain_text(f"{len(rows)} patches")


# Driven by keyboard


def test_everything_works_by_keyboard(browser: Browser, demo: Path, url: str) -> None:
    with looking(browser, url, permissions=["clipboard-read", "clipboard-write"]) as seen:
        page, keys = seen.page, seen.page.keyboard
        keys.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        keys.press("Enter")
        seen.tab_to("spring")
        before = seen.count()
        keys.press("Space")
        assert seen.count() == (before[0] - 1, before[1] - 23)
        assert page.inner_text("#detail h3") == "summer 55"
        seen.tab_to("scene-summer-55")
        keys.press("ArrowDown")
        assert (seen.focused(), page.inner_text("#detail h3")) == ("scene-summer-102", "summer 102")
        keys.press("End")
        assert seen.focused() == "scene-winter-55"
        keys.press("Enter")
        assert seen.focused() == "detail-title"
        keys.press("Escape")
        assert seen.focused() == "scene-winter-55"
        keys.press("Enter")
        seen.tab_to("Copy The scene as one raster")
        keys.press("Enter")
        expect(page.locator("#said")).to_have_text("Copied The scene as one raster")
        assert seen.focused() == "Copy The scene as one raster"
        assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#detail pre >> nth=0")
        assert page.url.endswith("#scene=winter-55")
        assert seen.complaints == []


def test_the_map_is_walked_by_arrow_keys(browser: Browser, url: str) -> None:
    with looking(browser, f"{url}#scene=winter-55") as seen:
        keys = seen.page.keyboard
        seen.tab_to("winter 55, test, 25 patches")
        walked = []
        for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowUp", "ArrowLeft"):
            keys.press(key)
            walked.append(seen.page.inner_text("#detail h3"))
        assert walked == ["spring 1", "summer 55", "fall 139", "summer 102", "winter 55"]
        keys.press("+")
        assert seen.page.is_enabled("#zoom-out")
        width = seen.page.evaluate("document.querySelector('#map').viewBox.baseVal.width")
        assert width == 1800
        keys.press("Enter")
        assert seen.focused() == "detail-title"
        assert seen.complaints == []


def test_copying_works_without_the_clipboard_interface(browser: Browser, url: str) -> None:
    with looking(browser, "about:blank") as seen:
        page = seen.page
        page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page.goto(url)
        page.click("#open-body .copy >> nth=1")
        page.evaluate("() => { const made = document.createElement('textarea'); document.body.append(made); made.focus(); }")
        page.keyboard.press("Control+V")
        assert page.evaluate("document.activeElement.value") == page.inner_text("#open-body pre >> nth=1")


def test_the_code_on_the_page_runs(browser: Browser, stac: Path) -> None:
    """Opened from a folder: the page knows where the cube lies."""
    with looking(browser, f"file://{stac}/{PAGE}#scene=summer-102") as seen:
        codes = seen.page.eval_on_selector_all("pre.code", "blocks => blocks.map(block => block.textContent)")
        names: dict[str, Any] = {}
        for code in codes:
            exec(code, names)
        assert len(codes) == 6
        assert names["scene"]["s2"].dims == ("s2_band", "y", "x")
        assert (names["patches"].sizes["patch"], names["data"].sizes["patch"], len(names["table"])) == (22, 118, 118)
        assert len(names["scenes"]) == 5
        assert seen.complaints == []


# As large as it gets


def test_the_full_size_page_is_quick_and_light(browser: Browser, large: Path, serve: Callable[[Path], str]) -> None:
    base = serve(large)
    scenes = [item["properties"] for item in full_size()[1].values()]
    tests = [scene["patchcube:patches"] for scene in scenes if scene["patchcube:split"] == "test"]
    for width in (PHONE, WIDE):
        with looking(browser, f"{base}/{PAGE}", width=width) as seen:
            page = seen.page
            assert seen.count() == (252, 180_662)
            page.wait_for_load_state("networkidle")
            asked = [url.removeprefix(f"{base}/") for url in seen.requests if url.startswith(base)]
            sizes = {path: (large / path).stat().st_size for path in asked}
            print(f"{width} px wide: {len(sizes)} requests, {sum(sizes.values()):,} bytes; the page {sizes[PAGE]:,}")
            assert len(sizes) <= 1 + 3
            assert sum(sizes.values()) < 400_000
            page.uncheck("input[value=train]")
            assert seen.count() == (len(tests), sum(tests))
            page.screenshot(path=large / f"full-{width}.png")
            print(f"screenshot: {large}/full-{width}.png")
            assert violations(page) == []
            assert seen.complaints == []
