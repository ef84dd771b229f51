"use strict";

const sheet = JSON.parse(document.getElementById("sheet").textContent);
const about = sheet.about || {};

/* Elements */

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

/** A table that can be scrolled sideways where it is too wide. The first cell of a row heads it. */
function table(caption, heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, first), ...cells.map((cell) => element("td", {}, cell)))
  );
  const whole = element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "wide", role: "region", tabindex: 0, "aria-label": caption }, whole);
}

function terms(pairs, attributes = {}) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return element("dl", attributes, ...shown.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/* Numbers and words */

const grouped = new Intl.NumberFormat("en");

function count(number, one, many = `${one}s`) {
  return `${grouped.format(number)} ${number === 1 ? one : many}`;
}

function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(share * 100).toFixed(1)} %`;
}

function bytes(number) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(number, 1)) / 3)));
  const value = number / 1000 ** step;
  return `${step && value < 100 ? value.toFixed(1) : grouped.format(Math.round(value))} ${units[step]}`;
}

/** The months from one day to another. */
function months([first, last]) {
  const named = (day) => new Intl.DateTimeFormat("en", { month: "short", year: "numeric", timeZone: "UTC" }).format(new Date(day));
  return named(first) === named(last) ? named(first) : `${named(first)} – ${named(last)}`;
}

/** A measured value with about four digits that mean something. */
function value(number) {
  return new Intl.NumberFormat("en", Math.abs(number) >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 }).format(number);
}

function total(numbers) {
  return numbers.reduce((sum, number) => sum + (number || 0), 0);
}

function degrees([longitude, latitude]) {
  const side = (number, plus, minus) => `${Math.abs(number).toFixed(2)}° ${number < 0 ? minus : plus}`;
  return `${side(latitude, "N", "S")}, ${side(longitude, "E", "W")}`;
}

/** What is known of a modality beside its name. */
function modalityTitle(name) {
  return (sheet.titles || {})[name] || name;
}

/* Copying */

/** Where the page may not use the clipboard (no https), the old way of a selected text field still works. */
function copyTheOldWay(text) {
  const field = element("textarea", { readonly: true, class: "unseen", "aria-hidden": "true", tabindex: -1 });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

async function copied(text) {
  if (!navigator.clipboard) return copyTheOldWay(text);
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyTheOldWay(text);
  }
}

function copyButton(text, what) {
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copied(text);
    button.focus();
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    byId("said").textContent = done ? `Copied ${what}` : `${what} could not be copied`;
    setTimeout(() => { button.textContent = "Copy"; byId("said").textContent = ""; }, 2500);
  });
  return button;
}

/** A block of text with a button that copies it. */
function copyable(title, text, kind = "code") {
  const shown = element("pre", { tabindex: 0, role: "region", "aria-label": title, class: kind }, element("code", {}, text));
  return element("figure", { class: "copyable" }, element("figcaption", {}, title), copyButton(text, title), shown);
}

/* Where the cube is, seen from this page */

function placeOf(href) {
  const url = new URL(href, location.href);
  url.hash = "";
  return url.protocol === "file:" ? decodeURIComponent(url.pathname) : url.href;
}

/** Text as Python writes it. */
function quoted(text) {
  return JSON.stringify(String(text));
}

/* Marks of scenes */

const SHAPES = [
  (x) => `M${x} 0A${x} ${x} 0 1 1 ${-x} 0A${x} ${x} 0 1 1 ${x} 0z`,
  (x) => `M0 ${-1.3 * x}L${1.3 * x} 0L0 ${1.3 * x}L${-1.3 * x} 0z`,
  (x) => `M${-0.9 * x} ${-0.9 * x}H${0.9 * x}V${0.9 * x}H${-0.9 * x}z`,
  (x) => `M0 ${-1.2 * x}L${1.2 * x} ${0.9 * x}H${-1.2 * x}z`,
];

/** The season gives a mark its color, the split its shape: no one has to tell colors apart to know the split. */
function mark(season, split) {
  const color = season === undefined ? "plain" : `season-${season % 8}`;
  return drawn("path", { class: `mark ${color}`, d: SHAPES[(split || 0) % SHAPES.length](5) });
}

function swatch(season, split) {
  return drawn("svg", { class: "swatch", viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" }, mark(season, split));
}
