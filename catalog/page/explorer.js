/** Filters, list, map and the chosen scene, which all show the same. */
class Explorer {
  constructor(scenes) {
    this.scenes = scenes;
    this.filters = [new Group("season", sheet.seasons || [], (at) => swatch(at, 0)),
      new Group("split", sheet.splits || [], (at) => swatch(undefined, at))];
    this.mostly = element("select", { id: "mostly" }, element("option", { value: "" }, "any"),
      ...(sheet.classes || []).map((name, at) => element("option", { value: at }, classOf(name).title)));
    this.label = element("select", { id: "label" }, element("option", { value: "" }, "any"),
      ...(sheet.labels || []).map(([, text], at) => element("option", { value: at }, text)));
    this.options = new Map(scenes.map((scene) => [scene, this.option(scene)]));
    byId("list").append(...this.options.values());
    byId("list").addEventListener("keydown", (event) => this.key(event));
    byId("detail").addEventListener("keydown", (event) => { if (event.key === "Escape") this.options.get(this.selected).focus(); });
    this.drawFilters();
    if (scenes.some((scene) => scene.at)) this.map = new WorldMap(scenes, (scene, from) => this.choose(scene, from));
    else for (const id of ["map-box", "map-help", "zoom"]) byId(id).remove();
    const named = new URLSearchParams(location.hash.slice(1)).get("scene");
    this.selected = scenes.find((scene) => scene.id === named) || scenes[0];
    this.filter();
  }

  drawFilters() {
    const form = byId("filters");
    form.append(...this.filters.filter((group) => group.names.length > 1).map((group) => group.field));
    if ((sheet.classes || []).length) form.append(element("div", { class: "field stack" },
      element("label", { for: "mostly" }, "Most frequent class of a patch"), this.mostly));
    if ((sheet.labels || []).length) form.append(element("div", { class: "field stack" },
      element("label", { for: "label" }, "Label of a patch"), this.label));
    form.append(element("button", { type: "reset", id: "reset" }, "Show all"));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => {
      // Scenes count patches by class and by label, not by both.
      if (event.target === this.mostly) this.label.value = "";
      if (event.target === this.label) this.mostly.value = "";
      this.filter();
    });
    form.addEventListener("reset", () => setTimeout(() => this.filter()));
  }

  /** How many patches of a scene the filters on classes and labels leave. */
  patches(scene) {
    if (this.label.value !== "") return (scene.labels || [])[this.label.value] || 0;
    if (this.mostly.value === "") return scene.patches || 0;
    return (scene.classes || [])[this.mostly.value] || 0;
  }

  filter() {
    for (const scene of this.scenes) {
      const patches = this.patches(scene);
      scene.shown = this.filters.every((group) => group.has(scene)) && (this.mostly.value + this.label.value === "" || patches > 0);
      const option = this.options.get(scene);
      option.hidden = !scene.shown;
      option.querySelector(".number").textContent = scene.patches === undefined ? "" : grouped.format(patches);
    }
    const shown = this.scenes.filter((scene) => scene.shown);
    byId("count").textContent = `${count(shown.length, "scene")}, ${count(total(shown.map((scene) => this.patches(scene))), "patch", "patches")}`;
    if (shown.length && !shown.includes(this.selected)) this.selected = shown[0];
    const where = this.where();
    byId("where").replaceChildren(...(shown.length && where ? [copyable("The same patches, as a filter", where, "text")] : []));
    this.show();
  }

  /** What is chosen, in the words of the filters that ``cube search``, ``cube copy`` and all readers take. */
  where() {
    const main = this.mostly.value === "" ? null : `class=${word(sheet.classes[this.mostly.value])}`;
    const [name, text] = this.label.value === "" ? [] : sheet.labels[this.label.value];
    return [...this.filters.map((group) => group.where()), main, name && `${name}=${word(text)}`].filter(Boolean).join(" and ");
  }

  option(scene) {
    const made = element("li", { role: "option", id: `scene-${scene.id}`, tabindex: -1, "aria-selected": "false", "aria-label": scene.label },
      swatch(scene.season, scene.split), element("span", { class: "name" }, scene.name), element("span", { class: "number" }));
    made.addEventListener("click", () => this.choose(scene, "click"));
    return made;
  }

  key(event) {
    const shown = this.scenes.filter((scene) => scene.shown), at = shown.indexOf(this.selected), last = shown.length - 1;
    const steps = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: last, PageDown: at + 10, PageUp: at - 10 };
    if (event.key in steps) {
      event.preventDefault();
      this.choose(shown[Math.min(Math.max(steps[event.key], 0), last)], "list");
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(this.selected, "enter");
    }
  }

  /** Look at a scene. ``from`` says where the choice was made: there the focus stays, but Enter goes on to the pictures. */
  choose(scene, from) {
    if (!scene) return;
    this.selected = scene;
    history.replaceState(null, "", `#scene=${encodeURIComponent(scene.id)}`);
    this.show();
    if (from === "map") this.map.focus(scene);
    if (from === "list" || from === "click") this.options.get(scene).focus({ preventScroll: true });
    if (from === "enter") byId("detail-title").focus();
    if (from === "click" || from === "map") this.bringDetail(from);
  }

  /** On a narrow screen the pictures are below the list: a tap on a scene brings them into view. */
  bringDetail(from) {
    const { top } = byId("detail").getBoundingClientRect();
    if (from === "click" && top > innerHeight - 120) byId("detail").scrollIntoView({ block: "start" });
  }

  show() {
    for (const [scene, option] of this.options) {
      option.setAttribute("aria-selected", String(scene === this.selected));
      option.setAttribute("tabindex", scene === this.selected ? 0 : -1);
    }
    this.intoList(this.options.get(this.selected));
    if (this.map) this.map.show(this.selected);
    const any = this.selected && this.selected.shown;
    byId("detail").replaceChildren(...(any ? sceneDetail(this.selected) : [element("p", { class: "hint" }, "No scene fits these filters.")]));
  }

  /** Scroll the list, and only the list, until an option is seen. */
  intoList(option) {
    const list = byId("list"), above = option.offsetTop - list.offsetTop, below = above + option.offsetHeight;
    if (above < list.scrollTop) list.scrollTop = above;
    if (below > list.scrollTop + list.clientHeight) list.scrollTop = below - list.clientHeight;
  }
}

/** Checkboxes of the names that a scene may have, all set at first. */
class Group {
  constructor(key, names, sign) {
    this.key = key;
    this.names = names;
    this.boxes = names.map((name) => element("input", { type: "checkbox", name: key, value: name, checked: true }));
    this.field = element("fieldset", { class: "field" }, element("legend", {}, `${key[0].toUpperCase()}${key.slice(1)}`),
      ...names.map((name, at) => element("label", { class: "check" }, this.boxes[at], sign(at), name)));
  }

  /** Nothing where all are set. */
  where() {
    const names = this.names.filter((_, at) => this.boxes[at].checked).map(word);
    if (names.length === this.names.length) return null;
    return names.length === 1 ? `${this.key}=${names[0]}` : `${this.key} in (${names.join(", ")})`;
  }

  has(scene) {
    const place = scene[this.key];
    return place === undefined || this.boxes[place].checked;
  }
}

/** A value of a filter: in quotes where it is more than a word. */
function word(text) {
  return /^[\w.-]+$/.test(text) ? text : `"${text}"`;
}

/* One scene */

function sceneDetail(scene) {
  const facts = [scene.split === undefined ? null : sheet.splits[scene.split],
    scene.patches === undefined ? null : count(scene.patches, "patch", "patches"), scene.at ? degrees(scene.at) : null].filter(Boolean);
  const title = element("h3", { id: "detail-title", tabindex: -1 }, scene.name);
  const pictures = (scene.pictures || []).map((picture) => overview(scene, picture));
  const legends = sceneLegends(scene);
  return [
    element("div", { class: "detail-head" }, title, element("p", { class: "facts" }, facts.join(" · "))),
    element("div", { class: "pictures" }, ...pictures, legends[0]),
    ...legends.slice(1).map((legend) => element("details", {}, element("summary", {}, legend.getAttribute("aria-label")), legend)),
    sceneCounts(scene),
    ...sceneCode(scene),
    element("p", { class: "hint" }, element("a", { href: scene.href }, `STAC item of ${scene.name}`)),
  ].filter(Boolean);
}

function overview(scene, picture) {
  const title = (sheet.captions || [])[picture.caption] || modalityTitle(picture.of);
  const [height, width] = picture.shape || [];
  const image = element("img", { src: picture.href, alt: `${title}, scene ${scene.name}`, width, height, loading: "lazy", decoding: "async",
    class: (sheet.bands || []).some((band) => band.modality === picture.of && band.classes) ? "cells" : null });
  const link = element("a", { href: picture.href, class: "picture" }, image);
  image.addEventListener("error", () => link.replaceWith(element("p", { class: "hint" }, "This picture is not there.")));
  return element("figure", {}, link, element("figcaption", {}, title));
}

function sceneLegends(scene) {
  return (sheet.legends || []).map((legend, at) => {
    const shares = (scene.shares || [])[at];
    const present = legend.classes.map((item, place) => [item, shares ? shares[place] : 0]).filter(([, share]) => share > 0);
    present.sort((one, other) => other[1] - one[1]);
    return present.length ? classKey(present, `Classes, ${legend.name}`) : null;
  }).filter(Boolean);
}

function classKey(present, label) {
  return element("ul", { class: "key", "aria-label": label }, ...present.map(([item, share]) =>
    element("li", {}, colorBox(item.color), element("span", {}, item.title), element("span", { class: "number" }, percent(share)))));
}

function sceneCounts(scene) {
  const counts = scene.counts || {};
  const heads = { images: "Images", nan_count: "NaN", zero_count: "Zero", saturated_count: "Saturated" };
  const kept = Object.keys(heads).filter((name) => counts[name]);
  if (!kept.length) return null;
  const rows = (sheet.modalities || []).map((name, at) => [name, ...kept.map((key) => grouped.format(counts[key][at]))]);
  const caption = kept.length > 1 ? "Images, and pixel values of note" : "Images";
  return table(caption, ["Modality", ...kept.map((key) => heads[key])], rows);
}

function sceneCode(scene) {
  if (!sheet.cube || scene.scene === undefined || scene.season === undefined) return [];
  const url = quoted(placeOf(sheet.cube)), season = quoted(sheet.seasons[scene.season]);
  return [
    copyable("The scene as one raster", `import cube\n\nscene = cube.open_scene(${url}, season=${season}, scene=${scene.scene})`),
    copyable("Its patches, with plain xarray",
      `import xarray as xr\n\ndata = xr.open_zarr(${url}, chunks=None)\npatches = data.sel(season=${season}).sel(scene=${scene.scene})`),
  ];
}
