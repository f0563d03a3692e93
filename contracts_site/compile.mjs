// Compile schemas to code that needs no eval: node compile.mjs < SCHEMAS.json > validators.js
// SCHEMAS is {name: schema}; the code declares VALIDATORS, {name: the function that ajv generates}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../contracts/snippets/node/package.json", import.meta.url));
const Ajv = require("ajv").default;
const Ajv2020 = require("ajv/dist/2020.js").default;
const standalone = require("ajv/dist/standalone").default;

// jsonschema-rs takes 1e400 for a number; a keyword without its type is what the tests of single keywords need.
const OPTIONS = { allErrors: true, messages: false, strictNumbers: false, strictTypes: false, code: { source: true } };

const used = new Set();

/** The code of one schema; what it requires at run time is named in `used`. */
function compiled(schema) {
  const Dialect = schema.$schema?.includes("draft-07") ? Ajv : Ajv2020;
  const ajv = new Dialect(OPTIONS);
  const code = standalone(ajv, ajv.compile(schema));
  for (const [, name] of code.matchAll(/require\("([^"]+)"\)/gu)) used.add(name);
  return `((module, require) => {${code}\nreturn module.exports;\n})({}, (name) => RUNTIME[name])`;
}

/** A function of ajv's run time as text; it may use nothing but itself. */
const runtime = (name) => `${JSON.stringify(name)}: { default: ${require(name).default} }`;

const schemas = Object.entries(JSON.parse(readFileSync(0, "utf8")));
const validators = schemas.map(([name, schema]) => `${JSON.stringify(name)}: ${compiled(schema)}`);
console.log('"use strict";');
console.log(`const RUNTIME = {\n${[...used].sort().map(runtime).join(",\n")}\n};`);
console.log(`const VALIDATORS = {\n${validators.join(",\n")}\n};`);
