// Check messages against a contract: node check.mjs SCHEMA FILE… (needs ajv, and nothing of ours)
// A .jsonl file holds one message a line, and is told as FILE:LINE.
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import Ajv2020 from "ajv/dist/2020.js";

const [schemaFile, ...files] = process.argv.slice(2);
const schema = files.length ? JSON.parse(readFileSync(schemaFile, "utf8")) : {};
if (!schema.$schema) {
  console.error("usage: node check.mjs SCHEMA FILE…, where SCHEMA is a JSON Schema with $schema");
  process.exit(2);
}
const Dialect = schema.$schema.includes("draft-07") ? Ajv : Ajv2020;
const validate = new Dialect({ strict: true, allErrors: true }).compile(schema);

// The pointer of a missing or unknown field is its own.
const escaped = (name) => name.replaceAll("~", "~0").replaceAll("/", "~1");
const pointer = ({ instancePath, params }) => {
  const name = params.missingProperty ?? params.additionalProperty;
  return (name === undefined ? instancePath : `${instancePath}/${escaped(name)}`) || "(root)";
};

let status = 0;
const check = (place, text) => {
  let message;
  try {
    message = JSON.parse(text);
  } catch (error) {
    console.error(`${place}: cannot be read as JSON: ${error.message}`);
    status = 2;
    return;
  }
  if (validate(message)) return;
  for (const error of validate.errors.filter(({ keyword }) => keyword !== "if")) {
    console.log(place, pointer(error), error.keyword);
    status ||= 1;
  }
};
for (const file of files) {
  const text = readFileSync(file, "utf8");
  if (file.endsWith(".jsonl")) text.trimEnd().split("\n").forEach((line, at) => check(`${file}:${at + 1}`, line));
  else check(file, text);
}
process.exitCode = status;
