/* The parts of the page. Each gives what it has to show; a part without anything is taken away, with its link. */

function figuresOf(scenes) {
  const { raw, stored } = sheet.bytes || {}, bands = sheet.bands || [];
  return [
    ["Patches", sheet.patches === undefined ? null : grouped.format(sheet.patches)],
    ["Scenes", scenes.length ? grouped.format(scenes.length) : null],
    ["Bands", bands.length ? grouped.format(bands.length) : null],
    ["Stored size", stored ? bytes(stored) : null],
    ["Smaller than the pixels", raw && stored ? `${(raw / stored).toFixed(1)} times` : null],
    ["Period", about.days && about.days.length === 2 ? months(about.days) : null],
    ["Licence", about.license],
  ];
}

function classesPart(scenes) {
  const patches = patchBars(scenes);
  const pixels = (sheet.legends || []).map((legend) => [`Pixels, ${legend.name}`, legendBars(legend)]).filter(([, bars]) => bars);
  const first = [...(patches ? [["Patches by their most frequent class", patches]] : []), ...pixels.slice(0, 1)];
  const cards = first.map(([title, bars]) => element("div", { class: "card" }, element("h3", {}, title), bars));
  const more = pixels.slice(1).map(([title, bars]) => element("details", {}, element("summary", {}, title), bars));
  return [...(cards.length ? [element("div", { class: "cards" }, ...cards)] : []), ...more];
}

function bandsPart() {
  const shown = [], measured = (sheet.bands || []).some((band) => band.histogram && !band.classes);
  for (const name of [...new Set((sheet.bands || []).map((band) => band.modality))]) {
    const bands = sheet.bands.filter((band) => band.modality === name && !band.classes);
    if (!bands.length) continue;
    shown.push(element("h3", {}, name, " ", element("span", { class: "facts" }, modalityTitle(name) === name ? "" : modalityTitle(name))));
    shown.push(element("div", { class: "cards small" }, ...bands.map(bandCard)));
    const numbers = bandTable(name, bands);
    if (numbers) shown.push(element("details", {}, element("summary", {}, `Statistics of ${name} as a table`), numbers));
  }
  const note = "Histograms leave out the outermost 0.05 % of the values on either side. The upright line is the mean of all values.";
  if (measured) shown.unshift(element("p", { class: "hint" }, note));
  return shown;
}

function qualityPart(scenes) {
  const heads = { images: "Images", nan_count: "NaN values", zero_count: "Zero values", saturated_count: "Saturated values" };
  const sum = (key, at) => total(scenes.map((scene) => ((scene.counts || {})[key] || [])[at]));
  const kept = Object.keys(heads).filter((key) => scenes.some((scene) => (scene.counts || {})[key]));
  const shown = [];
  if (kept.length) {
    const rows = (sheet.modalities || []).map((name, at) => [name, ...kept.map((key) => grouped.format(sum(key, at)))]);
    shown.push(table("Images, and values of note, by modality", ["Modality", ...kept.map((key) => heads[key])], rows));
  }
  const marked = scenes.filter((scene) => scene.defects);
  if (marked.length) {
    const counts = (sheet.defects || []).map((name, at) => [name, grouped.format(total(marked.map((scene) => scene.defects[at])))]);
    shown.push(table("Patches with defects, each a field of filters", ["Defect", "Patches"], counts));
  }
  const rejected = Object.entries(sheet.rejected || {});
  if (rejected.length) {
    shown.push(table("Files and patches that were left out, by reason", ["Reason", "Number"],
      rejected.map(([reason, number]) => [reason, grouped.format(number)])));
  } else if (sheet.rejected !== undefined) shown.push(element("p", {}, "No file was left out."));
  if (sheet.checks) {
    shown.push(element("h3", {}, "Checks that the cube passed"), element("ul", { class: "checks" }, ...sheet.checks.map((name) => element("li", {}, name))));
  }
  if (sheet.digest) shown.push(copyable("Digest of all pixels", sheet.digest, "text"));
  return shown;
}

function sizePart() {
  const { raw, stored } = sheet.bytes || {}, shown = [], tiles = Object.entries(sheet.tiles || {});
  if (raw && stored) {
    const most = Math.max(raw, stored);
    const rows = [["All patches, uncompressed", raw], ["This cube", stored]];
    shown.push(element("p", {}, `The cube takes ${bytes(stored)}: ${(raw / stored).toFixed(1)} times less than its patches, ` +
      `each by itself and uncompressed. ${bytes(raw - stored)} are saved.`));
    shown.push(element("ul", { class: "bars", "aria-label": "Bytes" }, ...rows.map(([name, number]) =>
      element("li", {}, element("span", { class: "name" }, name), bar(number / most), element("span", { class: "number" }, bytes(number))))));
  } else if (stored) shown.push(element("p", {}, `The cube takes ${bytes(stored)}.`));
  if (tiles.length) {
    const times = ({ used, stored: kept }) => kept ? `${(used / kept).toFixed(2)} times` : "";
    shown.push(table("Tiles: equal ground is stored once", ["Modality", "In patches", "Stored", "Each is shown"],
      tiles.map(([name, item]) => [name, grouped.format(item.used), grouped.format(item.stored), times(item)])));
  }
  return shown;
}

function openPart() {
  if (!sheet.cube) return [];
  const url = quoted(placeOf(sheet.cube)), blocks = [
    copyable("With this package", `import cube\n\ndata = cube.open_cube(${url})`),
    copyable("With plain xarray", `import xarray as xr\n\ndata = xr.open_zarr(${url}, chunks=None)`),
    copyable("The catalog, with pystac", `import pystac\n\ncollection = pystac.Collection.from_file(${quoted(placeOf("collection.json"))})\nscenes = list(collection.get_items())`),
  ];
  const parquet = (sheet.files || []).find((file) => (file.type || "").includes("parquet"));
  if (parquet) {
    blocks.push(copyable("One row per patch, with pandas", `import pandas as pd\n\ntable = pd.read_parquet(${quoted(placeOf(parquet.href))})`));
  }
  const links = [{ href: "collection.json", title: "STAC collection" }, ...(sheet.files || []).filter((file) => file.href !== "./index.html")];
  const list = element("ul", {}, ...links.map((file) => element("li", {}, element("a", { href: file.href }, file.title || file.key))));
  return [element("div", { class: "cards" }, ...blocks), element("h3", {}, "Files"), list];
}

function citePart() {
  const shown = [];
  if (about.citation) shown.push(copyable("Citation", about.citation, "text"));
  if (about.doi) shown.push(element("p", {}, "DOI of the data set: ", outside(`https://doi.org/${about.doi}`, about.doi)));
  const papers = (about.publications || []).map((paper) => element("li", {}, paper.citation || "", " ",
    paper.doi ? outside(`https://doi.org/${paper.doi}`, paper.doi) : null));
  if (papers.length) shown.push(element("h3", {}, "Publications"), element("ul", {}, ...papers));
  const providers = (about.providers || []).map((item) => element("li", {}, item.url ? outside(item.url, item.name) : item.name,
    item.roles ? ` (${item.roles.join(", ")})` : "", item.description ? `: ${item.description}` : ""));
  if (providers.length) shown.push(element("h3", {}, "Made and published by"), element("ul", {}, ...providers));
  const facts = terms([["Licence", about.license], ["Version", about.version]], { class: "facts" });
  if (facts.children.length) shown.push(facts);
  return shown;
}

/** A link that leaves the page: followed only when somebody clicks it. */
function outside(url, text) {
  return /^https?:/.test(url) ? element("a", { href: url, rel: "noreferrer" }, text) : text;
}

function part(id, shown) {
  if (shown.length) return byId(`${id}-body`).append(...shown);
  byId(id).remove();
  document.querySelector(`nav a[href="#${id}"]`).parentNode.remove();
}

/** A data set without seasons has one, called all; one without scenes has the scene 0 alone. */
function nameOf(season, scene) {
  return season !== "all" ? `${season} ${scene}` : scene === 0 ? "All patches" : `scene ${scene}`;
}

function start() {
  const scenes = (sheet.scenes || []).map((scene) => {
    const name = scene.season === undefined || scene.scene === undefined ? scene.id : nameOf(sheet.seasons[scene.season], scene.scene);
    const more = [scene.split === undefined ? null : sheet.splits[scene.split], scene.patches === undefined ? null : count(scene.patches, "patch", "patches")];
    return { ...scene, name, label: [name, ...more].filter(Boolean).join(", ") };
  });
  byId("figures").replaceWith(terms(figuresOf(scenes), { class: "figures" }));
  part("classes", classesPart(scenes));
  part("bands", bandsPart());
  part("quality", qualityPart(scenes));
  part("size", sizePart());
  part("open", openPart());
  part("cite", citePart());
  if (scenes.length) return new Explorer(scenes);
  byId("scenes").remove();
  document.querySelector('nav a[href="#scenes"]').parentNode.remove();
  return null;
}

start();
