"use strict";
// Judges a document by a schema: the keywords that the contracts use, and no others.

const MAX_PATTERN = 80;
const NAME = /^[A-Za-z0-9_:-]{1,64}$/u;

const TYPES = {
  null: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  string: (value) => typeof value === "string",
  array: (value) => Array.isArray(value),
  object: (value) => value instanceof Map,
  number: (value) => value instanceof JsonNumber,
  integer: (value) => value instanceof JsonNumber && (value.isWhole || Number.isInteger(value.value)),
};

const PROBLEMS = {
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
  anyOf: () => "is none of what the contract allows",
  pattern: (limit) => (limit.length > MAX_PATTERN ? "is not of the form that is asked for" : `does not match ${limit}`),
  type: (limit, found) => `is ${typeOf(found)}, must be of type ${[limit].flat().join(" or ")}`,
};

// What a keyword asks of a value, as a yes or no: where it does, its error stands at the value itself.
const ASKS = {
  type: (limit, value) => [limit].flat().some((name) => TYPES[name](value)),
  const: (limit, value) => plain(value) === limit,
  enum: (limit, value) => limit.includes(plain(value)),
  pattern: (limit, value) => typeof value !== "string" || expression(limit).test(value),
  minLength: (limit, value) => typeof value !== "string" || characters(value) >= limit,
  maxLength: (limit, value) => typeof value !== "string" || characters(value) <= limit,
  minItems: (limit, value) => !Array.isArray(value) || value.length >= limit,
  maxItems: (limit, value) => !Array.isArray(value) || value.length <= limit,
  minimum: (limit, value) => !(value instanceof JsonNumber) || value.value >= limit,
  maximum: (limit, value) => !(value instanceof JsonNumber) || value.value <= limit,
  exclusiveMinimum: (limit, value) => !(value instanceof JsonNumber) || value.value > limit,
  exclusiveMaximum: (limit, value) => !(value instanceof JsonNumber) || value.value < limit,
  anyOf: (limit, value, root) => limit.some((one) => passes(one, value, root)),
};

// The others lead to further values, or to further schemas of the same value.
const LEADS = {
  $ref: ({ limit, value, at, found, root }) => check(resolved(root, limit), value, at, found, root),
  allOf: ({ limit, value, at, found, root }) => limit.forEach((one) => check(one, value, at, found, root)),
  if: ({ limit, node, value, at, found, root }) => {
    const branch = passes(limit, value, root) ? node.then : node.else;
    if (branch) check(branch, value, at, found, root);
  },
  items: ({ limit, value, at, found, root }) => {
    if (Array.isArray(value)) value.forEach((item, index) => check(limit, item, [...at, index], found, root));
  },
  properties: ({ limit, value, at, found, root }) => {
    if (!(value instanceof Map)) return;
    for (const [name, inner] of Object.entries(limit)) {
      if (value.has(name)) check(inner, value.get(name), [...at, name], found, root);
    }
  },
  required: ({ limit, node, value, at, found, root }) => {
    if (!(value instanceof Map)) return;
    for (const name of limit.filter((one) => !value.has(one))) {
      const remedy = described(root, node.properties?.[name] ?? {});
      found.push(fault([...at, name], "required", "is missing", remedy));
    }
  },
  additionalProperties: ({ limit, node, value, at, found, root }) => {
    if (!(value instanceof Map) || limit === true) return;
    const known = Object.keys(node.properties ?? {});
    for (const [name, inner] of [...value].filter(([one]) => !known.includes(one))) {
      const place = [...at, name];
      if (limit !== false) check(limit, inner, place, found, root);
      else found.push(fault(place, "additionalProperties", "is not a field of the contract", instead(name, known)));
    }
  },
};

const SAID = ["$schema", "$id", "$defs", "definitions", "$comment", "title", "description", "then", "else"];

/** Every keyword that this validator knows. */
const KEYWORDS = new Set([...Object.keys(ASKS), ...Object.keys(LEADS), ...SAID]);

/** Throws an Error if a schema says anything that is not checked here. */
function mustBeKnown(node) {
  if (typeof node !== "object") throw new Error(`this page does not know ${node} as a schema`);
  for (const [keyword, inner] of Object.entries(node)) {
    if (!KEYWORDS.has(keyword)) throw new Error(`this page does not know the keyword ${keyword}`);
    if (["properties", "$defs", "definitions"].includes(keyword)) Object.values(inner).forEach(mustBeKnown);
    else if (["anyOf", "allOf"].includes(keyword)) inner.forEach(mustBeKnown);
    else if (["items", "if", "then", "else"].includes(keyword)) mustBeKnown(inner);
    else if (keyword === "additionalProperties" && typeof inner !== "boolean") mustBeKnown(inner);
    else if (keyword === "const") mustBePlain([inner]);
    else if (keyword === "enum") mustBePlain(inner);
  }
}

function mustBePlain(values) {
  if (values.some((one) => one !== null && typeof one === "object")) throw new Error("this page compares no objects");
}

/** What is wrong with a document by a schema, each place and keyword once. */
function faultsOf(schema, content) {
  const found = [];
  check(schema, content, [], found, schema);
  return [...new Map(found.map((one) => [`${one.pointer} ${one.keyword}`, one])).values()];
}

function check(node, value, at, found, root) {
  for (const [keyword, limit] of Object.entries(node)) {
    if (Object.hasOwn(LEADS, keyword)) LEADS[keyword]({ limit, node, value, at, found, root });
    else if (Object.hasOwn(ASKS, keyword) && !ASKS[keyword](limit, value, root)) {
      found.push(fault(at, keyword, PROBLEMS[keyword](limit, value), described(root, node)));
    }
  }
}

function passes(node, value, root) {
  const found = [];
  check(node, value, [], found, root);
  return found.length === 0;
}

function fault(at, keyword, problem, remedy) {
  return { pointer: at.map((step) => (NAME.test(step) ? `/${step}` : "/…")).join(""), keyword, problem, remedy };
}

function resolved(root, reference) {
  return reference.split("/").slice(1).reduce((node, step) => node[step], root);
}

/** What the contract says of a field: what to write there. */
function described(root, node) {
  const field = node.$ref ? resolved(root, node.$ref) : node;
  return (field.description ?? "see the contract").split("\n")[0];
}

function instead(name, known) {
  const letters = (one) => one.toLowerCase().replace(/[^a-z0-9]/gu, "");
  const close = known.find((one) => letters(one) === letters(name));
  return close ? `write ${close}` : "leave it out; if AWS wrote this message, judge it by the consumer profile";
}

const expressions = new Map();

function expression(pattern) {
  if (!expressions.has(pattern)) expressions.set(pattern, new RegExp(pattern, "u"));
  return expressions.get(pattern);
}

function characters(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

function plain(value) {
  return value instanceof JsonNumber ? value.value : value;
}

function typeOf(value) {
  if (value === null) return "null";
  const name = Object.keys(TYPES).find((one) => TYPES[one](value));
  return `${/^[aeiou]/u.test(name) ? "an" : "a"} ${name}`;
}

function counted(number) {
  return number.toLocaleString("en");
}
