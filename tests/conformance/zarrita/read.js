// Reads the slices that a JSON document on stdin asks for and prints one hash of each:
// {cube, requests: [{array, key: [[start, stop, step], …]}]} → [{dtype, shape, sha256}, …]
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import FileSystemStore from "@zarrita/storage/fs";
import * as zarr from "zarrita";

const { cube, requests } = JSON.parse(readFileSync(0, "utf8"));
const root = zarr.root(new FileSystemStore(cube));
const arrays = new Map();

async function read({ array, key }) {
  if (!arrays.has(array)) {
    arrays.set(array, await zarr.open.v3(root.resolve(array), { kind: "array" }));
  }
  const opened = arrays.get(array);
  const { data, shape, stride } = await zarr.get(opened, key.map(([start, stop, step]) => zarr.slice(start, stop, step)));
  const expected = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  if (stride.some((step, axis) => step !== expected[axis])) {
    throw new Error(`${array}: strides ${stride} are not those of C order`);
  }
  const items = shape.reduce((a, b) => a * b, 1);
  const bytes = new Uint8Array(data.buffer, data.byteOffset ?? 0, items * data.BYTES_PER_ELEMENT);
  return { dtype: opened.dtype.replace("v2:", ""), shape, sha256: createHash("sha256").update(bytes).digest("hex") };
}

const answers = [];
for (const request of requests) {
  answers.push(await read(request));
}
process.stdout.write(JSON.stringify(answers));
