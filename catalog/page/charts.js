/* Classes */

/** A class by its name or title; of the first legend where several have it. */
function classOf(name) {
  const all = (sheet.legends || []).flatMap((legend) => legend.classes);
  return all.find((item) => item.name === name || item.title === name) || { name, title: name };
}

/** A square of a color that comes from the data, so from no style sheet. */
function colorBox(color) {
  return drawn("svg", { class: "box", viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
    drawn("rect", { width: 12, height: 12, fill: color || "none" }));
}

/** A bar from 0 to ``share``, which is at most 1. */
function bar(share, color, cls = "bar") {
  return drawn("svg", { class: cls, viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawn("rect", { class: "track", width: 100, height: 10 }),
    drawn("rect", { class: "value", width: Math.max(share * 100, share > 0 ? 0.4 : 0), height: 10, fill: color || null }));
}

function legendBars(legend) {
  if (!legend.shares) return null;
  const present = legend.classes.map((item, at) => [item, legend.shares[at]]).filter(([, share]) => share > 0);
  present.sort((one, other) => other[1] - one[1]);
  const most = present.length ? present[0][1] : 1;
  return element("ul", { class: "bars", "aria-label": `Share of each class, ${legend.name}` }, ...present.map(([item, share]) =>
    element("li", {}, element("span", { class: "name" }, colorBox(item.color), item.title),
      bar(share / most, item.color), element("span", { class: "number" }, percent(share)))));
}

/** Patches by their most frequent class, over all scenes. */
function patchBars(scenes) {
  const names = sheet.classes || [];
  const sums = names.map((name, at) => total(scenes.map((scene) => (scene.classes || [])[at])));
  const rows = names.map((name, at) => [classOf(name), sums[at]]).filter(([, sum]) => sum > 0);
  rows.sort((one, other) => other[1] - one[1]);
  if (!rows.length) return null;
  return element("ul", { class: "bars", "aria-label": "Patches by most frequent class" }, ...rows.map(([item, sum]) =>
    element("li", {}, element("span", { class: "name" }, colorBox(item.color), item.title),
      bar(sum / rows[0][1], item.color), element("span", { class: "number" }, grouped.format(sum)))));
}

/* Bands */

const FEWEST = 12;

/** First and last bin to draw: without the outermost two-thousandth of the values on either side, but some bins at least. */
function middleOf(counts) {
  const least = total(counts) / 2000;
  let first = 0, last = counts.length - 1;
  for (let sum = counts[first]; sum < least && first < last; sum += counts[first]) first += 1;
  for (let sum = counts[last]; sum < least && last > first; sum += counts[last]) last -= 1;
  while (last - first + 1 < Math.min(FEWEST, counts.length)) {
    if (last < counts.length - 1) last += 1;
    else first -= 1;
  }
  return [first, last];
}

function histogram(band) {
  const { lower, upper, counts } = band.histogram, [first, last] = middleOf(counts);
  const step = (upper - lower) / counts.length, from = lower + first * step, to = lower + (last + 1) * step;
  const shown = counts.slice(first, last + 1), most = Math.max(...shown, 1), wide = 240 / shown.length;
  let path = "M0 80";
  shown.forEach((number, at) => { path += `V${(80 - 76 * number / most).toFixed(2)}H${((at + 1) * wide).toFixed(2)}`; });
  const label = `Histogram of ${band.label}: nearly all values from ${value(from)} to ${value(to)}${unitOf(band)}, most often ` +
    `about ${value(from + (shown.indexOf(most) + 0.5) * step)}`;
  const image = drawn("svg", { class: "histogram", viewBox: "0 0 240 81", preserveAspectRatio: "none", role: "img", "aria-label": label },
    drawn("path", { class: "area", d: `${path}V80z` }), drawn("path", { class: "axis", d: "M0 80.5H240" }));
  const mean = band.statistics && band.statistics.mean;
  if (mean >= from && mean <= to) {
    const x = 240 * (mean - from) / (to - from);
    image.append(drawn("path", { class: "mean", d: `M${x.toFixed(2)} 0V80` }));
  }
  return [image, element("p", { class: "ends", "aria-hidden": "true" }, element("span", {}, value(from)), element("span", {}, value(to)))];
}

function unitOf(band) {
  return band.unit ? ` ${band.unit}` : "";
}

function bandCard(band) {
  const wave = band.wavelength ? `${Math.round(band.wavelength * 1000)}\u00a0nm` : null, gsd = band.gsd ? `${band.gsd}\u00a0m` : null;
  const facts = [band.common, wave, gsd, band.description, band.unit].filter(Boolean).join(" · ");
  return element("div", { class: "card band" }, element("h4", {}, band.label), element("p", { class: "facts" }, facts),
    ...(band.histogram ? histogram(band) : []));
}

function bandTable(name, bands) {
  const heads = { minimum: "Minimum", maximum: "Maximum", mean: "Mean", stddev: "Std. dev.", count: "Values" };
  const kept = Object.keys(heads).filter((key) => bands.some((band) => (band.statistics || {})[key] !== undefined));
  if (!kept.length) return null;
  const cell = (band, key) => (band.statistics || {})[key] === undefined ? "" : value(band.statistics[key]);
  const unit = bands[0].unit ? `, in ${bands[0].unit}` : "";
  return table(`Statistics of ${name}${unit}`, ["Band", ...kept.map((key) => heads[key])],
    bands.map((band) => [band.label, ...kept.map((key) => key === "count" ? grouped.format((band.statistics || {}).count || 0) : cell(band, key))]));
}
