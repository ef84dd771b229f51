// Reads {schemas, documents} from stdin; prints for each document what the core ("core") and the extensions (by URL) have against it.
const fs = require("fs");
const path = require("path");
const validate = require("stac-node-validator");

const { schemas, documents } = JSON.parse(fs.readFileSync(0, "utf8"));
const hosts = ["stac-extensions.github.io", "schemas.stacspec.org", "proj.org", "geojson.org"];
const schemaMap = Object.fromEntries(hosts.map((host) => [`https://${host}/`, path.join(schemas, host) + "/"]));

async function loader(uri) {
  if (uri.startsWith("http")) throw new Error(`${uri} was to be fetched`);
  return JSON.parse(fs.readFileSync(uri, "utf8"));
}

async function main() {
  const report = await validate(documents, { loader, schemaMap });
  const answers = report.children.map(({ results }) => {
    const found = { core: results.core, ...results.extensions };
    return Object.fromEntries(Object.entries(found).filter(([, errors]) => errors.length));
  });
  console.log(JSON.stringify(answers));
}

main();
