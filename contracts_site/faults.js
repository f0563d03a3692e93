"use strict";
// Says what is wrong and what to write instead, for each error of the code that ajv generates. The schemas have no $ref
// any more (contracts_site/validators.py), so the path of an error leads to what the contract says of the field.

const MAX_PATTERN = 80;
const NAME = /^[A-Za-z0-9_:-]{1,64}$/u;

// The order of the command line, which is that of jsonschema-rs: in a value by keyword, in an object by field.
const ORDER = [
  "type", "const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength",
  "minItems", "maxItems", "required", "pattern", "properties", "additionalProperties", "items", "allOf", "anyOf", "then",
  "else",
];

const PROBLEMS = {
  required: () => "is missing",
  additionalProperties: () => "is not a field of the contract",
  minLength: (limit) => `has fewer than ${counted(limit)} characters`,
  maxLength: (limit) => `has more than ${counted(limit)} characters`,
  minItems: (limit) => `has fewer than ${counted(limit)} items`,
  maxItems: (limit) => `has more than ${counted(limit)} items`,
  minimum: (limit) => `is less than ${counted(limit)}`,
  maximum: (limit) => `is greater than ${counted(limit)}`,
  exclusiveMinimum: (limit) => `must be greater than ${counted(limit)}`,
  exclusiveMaximum: (limit) => `must be less than ${counted(limit)}`,
  const: (limit) => `must be ${JSON.stringify(limit)}`,
  enum: (limit) => `must be ${limit.map((one) => JSON.stringify(one)).join(" or ")}`,
  anyOf: () => "matches no alternative of the contract",
  pattern: (limit) => (limit.length > MAX_PATTERN ? "does not have the required form" : `does not match ${limit}`),
  type: (limit, found) => `is ${typeOf(found)}, must be of type ${[limit].flat().join(" or ")}`,
};

/** What is wrong with a document by a schema, each place and keyword once, in the order of the command line. */
function faultsOf(validate, schema, content) {
  if (validate(content)) return [];
  const found = validate.errors.filter(isOurs).map((error) => {
    const place = placeOf(error, schema, content);
    const name = error.params.missingProperty ?? error.params.additionalProperty;
    const at = [...steps(error.instancePath), ...(name === undefined ? [] : [name])];
    const problem = PROBLEMS[error.keyword](place.limit, place.value);
    return { ...fault(at, error.keyword, problem, remedyOf(error.keyword, place.node, name, at)), rank: place.rank };
  });
  return first(found.sort((one, other) => compared(one.rank, other.rank)));
}

/** Each place and keyword once. */
function first(found) {
  const known = new Map();
  for (const { rank: _, ...one } of found) {
    const place = `${one.pointer} ${one.keyword}`;
    if (!known.has(place)) known.set(place, one);
  }
  return [...known.values()];
}

/** ajv also reports the `if` whose branch has failed, and what is wrong by each alternative. */
function isOurs({ keyword, schemaPath }) {
  return keyword !== "if" && !/\/anyOf\/[0-9]+\//u.test(schemaPath);
}

/** Where an error stands: the node of the schema, its limit, the value, and the rank among the faults. */
function placeOf(error, schema, content) {
  const [path, at, rank] = [steps(error.schemaPath).map(decodeURIComponent), steps(error.instancePath), []];
  let [node, value] = [schema, content];
  while (path.length > 1) {
    const [parent, keyword] = [node, path.shift()];
    const inner = ["properties", "allOf"].includes(keyword) ? path.shift() : null;
    node = inner === null ? parent[keyword] : parent[keyword][inner];
    rank.push(ORDER.indexOf(keyword));
    if (keyword === "allOf") rank.push(Number(inner));
    if (!["properties", "additionalProperties", "items"].includes(keyword)) continue;
    const step = at.shift();
    rank.push(keyword === "items" ? Number(step) : fieldRank(parent, value, step));
    value = value[step];
  }
  return { node, value, limit: node[error.keyword], rank: [...rank, ...ownRank(error, node, value)] };
}

/** Fields are in the order of the document; those of an open object that has more than the schema knows, by name. */
function fieldRank(node, value, name) {
  const [written, known] = [ranks(value), Object.keys(node.properties ?? {})];
  const isByName = node.additionalProperties === undefined && written.size > known.length;
  return isByName ? known.sort().indexOf(name) : written.get(name);
}

const ranksOf = new WeakMap();

/** The place of each field in an object; it is counted once, because an object may have many faults. */
function ranks(object) {
  if (!ranksOf.has(object)) ranksOf.set(object, new Map(Object.keys(object).map((name, index) => [name, index])));
  return ranksOf.get(object);
}

function ownRank({ keyword, params }, node, value) {
  const rank = ORDER.indexOf(keyword);
  if (keyword === "additionalProperties") return [rank, ranks(value).get(params.additionalProperty)];
  if (keyword !== "required") return [rank];
  const isLast = node.additionalProperties === false && node.required.length === 1;
  return [isLast ? ORDER.indexOf("additionalProperties") + 0.5 : rank, node.required.indexOf(params.missingProperty)];
}

function compared(one, other) {
  const at = one.findIndex((part, index) => part !== other[index]);
  return at === -1 ? 0 : one[at] - (other[at] ?? -1);
}

function steps(pointer) {
  const unescaped = (step) => step.replaceAll("~1", "/").replaceAll("~0", "~");
  return pointer.split("/").slice(1).map(unescaped);
}

function remedyOf(keyword, node, name, at) {
  if (keyword === "required") return `write ${name}${content(node.properties?.[name] ?? {})}`;
  return keyword === "additionalProperties" ? instead(name, Object.keys(node.properties ?? {})) : corrected(node, at);
}

/** What to write instead of a value. */
function corrected(node, at) {
  if (node.required?.length) return `write an object${content(node)}`;
  return `write ${at.findLast((step) => !/^[0-9]+$/u.test(step)) ?? "a document"}${content(node)}`;
}

/** What belongs into a field that is to be written: the fields of an object, the only value, or a description. */
function content(node) {
  if (node.required?.length) return ` with ${node.required.join(" and ")}`;
  if (node.const !== undefined) return `: ${JSON.stringify(node.const)}`;
  return node.description ? `: ${node.description.split("\n")[0]}` : " as the contract describes it";
}

function instead(name, known) {
  const close = known.find((one) => letters(one) === letters(name));
  return close ? `write ${close}` : "leave it out; if AWS wrote this message, check it by the consumer profile";
}

/** What is left of a name if case and punctuation do not matter. */
function letters(name) {
  return name.toLowerCase().replace(/[^a-z0-9]/gu, "");
}

function fault(at, keyword, problem, remedy) {
  return { pointer: at.map((step) => (NAME.test(step) ? `/${step}` : "/…")).join(""), keyword, problem, remedy };
}

function typeOf(value) {
  if (value === null) return "null";
  const name = Array.isArray(value) ? "array" : typeof value;
  return `${/^[aeiou]/u.test(name) ? "an" : "a"} ${name}`;
}

function counted(number) {
  return number.toLocaleString("en");
}
