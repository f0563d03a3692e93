"use strict";
// Judges messages as `aggregator contract validate` does: the same pointers, keywords and lines. aggregator/validation.py
// is what this follows; tests/test_contracts_site.py runs both on every example and its mutants.

const LAST_WORD = "no schema says this, but the Lambda refuses the message";
const MAX_PATTERN = 80;
const MAX_KEY_BYTES = 1024;
const NAME = /^[A-Za-z0-9_:-]{1,64}$/u;

const CONTRACT_OF_KIND = { s3: "s3-notification", eventbridge: "eventbridge-notification" };
const SKIPPED_KINDS = ["test", "eventbridge-other"];

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
    if (!(value instanceof Map)) return;
    const known = Object.keys(node.properties ?? {});
    for (const [name, inner] of value) {
      if (known.includes(name)) continue;
      if (limit === false) found.push(fault([...at, name], "additionalProperties", "is no field of the contract", instead(name, known)));
      else check(limit, inner, [...at, name], found, root);
    }
  },
};

const SAID = ["$schema", "$id", "$defs", "definitions", "$comment", "title", "description", "then", "else"];

/** Every keyword that this validator knows. */
const KEYWORDS = new Set([...Object.keys(ASKS), ...Object.keys(LEADS), ...SAID]);

/** Throws an Error if a schema says anything that is not checked here. */
function mustBeKnown(node) {
  if (typeof node !== "object" || node === null) throw new Error(`${JSON.stringify(node)} is no schema that this page knows`);
  for (const [keyword, inner] of Object.entries(node)) {
    if (!KEYWORDS.has(keyword)) throw new Error(`this page does not know the keyword ${keyword}`);
    if (["properties", "$defs", "definitions"].includes(keyword)) Object.values(inner).forEach(mustBeKnown);
    else if (["anyOf", "allOf"].includes(keyword)) inner.forEach(mustBeKnown);
    else if (["items", "if", "then", "else"].includes(keyword)) mustBeKnown(inner);
    else if (keyword === "additionalProperties" && inner !== false) mustBeKnown(inner);
    else if (["const", "enum"].includes(keyword) && [inner].flat().some((one) => one !== null && typeof one === "object")) {
      throw new Error(`this page compares no objects, as ${keyword} asks`);
    }
  }
}

/** Judges by one contract, or by the one that each message is made for; `contracts` are those of the page. */
class Judge {
  constructor(contracts, profile, label) {
    contracts.forEach((one) => Object.values(one.profiles).forEach(mustBeKnown));
    this.contracts = contracts;
    this.profile = profile;
    this.chosen = label ? contracts.find((one) => one.label === label) : null;
  }

  /** A verdict for each message of a text: its line, the pointer of the text that holds it, contract and faults. */
  verdicts(text) {
    return documents(text).flatMap((document) =>
      document.content instanceof Unreadable
        ? [{ line: document.line, at: "", contract: null, faults: [unreadable(document.content, document.line)] }]
        : this.document(document).map((verdict) => located(document, verdict)),
    );
  }

  document({ text, content }) {
    const isWhole = this.chosen && !Object.values(CONTRACT_OF_KIND).includes(this.chosen.name);
    if (isWhole) return [this.message({ at: "", content })];
    const verdicts = messages(content).map((message) => this.message(message));
    if (!isBatch(content)) return verdicts;
    const batch = this.named("sqs-batch");
    const faults = faultsOf(batch.profiles.consumer, content);
    return faults.length ? [{ at: "", contract: batch.label, faults }, ...verdicts] : verdicts;
  }

  message({ at, content }) {
    if (content instanceof Unreadable) return { at, contract: null, faults: [unreadable(content)] };
    const kind = kindOf(content);
    const one = this.chosen ?? this.named(CONTRACT_OF_KIND[kind]);
    if (one) {
      const faults = faultsOf(one.profiles[this.profile], content);
      const isParsed = !faults.length && one.name === CONTRACT_OF_KIND[kind];
      return { at, contract: one.label, faults: isParsed ? byTheLambda(kind, content) : faults };
    }
    const isSkipped = SKIPPED_KINDS.includes(kind);
    return { at, contract: null, faults: isSkipped && this.profile === "consumer" ? skipped(kind, content) : [unknown(isSkipped)] };
  }

  named(name) {
    return this.contracts.find((one) => one.name === name);
  }
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

/** What a document carries to the queue: itself, the bodies of an SQS event, what SNS envelopes hold. */
function messages(content) {
  if (!isBatch(content)) return [outOfSns({ at: "", content })];
  return content.get("Records").flatMap((record, index) => {
    const body = record instanceof Map ? record.get("body") : null;
    return typeof body === "string" ? [outOfSns({ at: `/Records/${index}/body`, content: parsed(body) })] : [];
  });
}

function isBatch(content) {
  const records = content instanceof Map ? content.get("Records") : null;
  return Array.isArray(records) && records.some((one) => one instanceof Map && one.get("eventSource") === "aws:sqs");
}

function outOfSns(message) {
  const { at, content } = message;
  const inner = content instanceof Map && content.get("Type") === "Notification" ? content.get("Message") : null;
  return typeof inner === "string" ? { at: at ? `${at}#/Message` : "/Message", content: parsed(inner) } : message;
}

function kindOf(body) {
  if (!(body instanceof Map)) return null;
  if (body.get("Event") === "s3:TestEvent") return "test";
  if (body.has("detail-type")) return body.get("detail-type") === "Object Created" ? "eventbridge" : "eventbridge-other";
  if (body.get("Type") === "Notification") return "sns";
  return body.has("Records") ? "s3" : null;
}

/** What no schema says: aggregator/agreement.py has the whole list. */
function byTheLambda(kind, content) {
  if (kind === "eventbridge") return objectFaults(content.get("detail").get("object"), ["detail", "object"], utf8);
  if (kind !== "s3") return [];
  return content.get("Records").flatMap((record, index) => {
    if (!record.get("eventName").startsWith("ObjectCreated:")) return [];
    return objectFaults(record.get("s3").get("object"), ["Records", index, "s3", "object"], decoded);
  });
}

function objectFaults(object, at, bytesOf) {
  const found = [];
  const refuse = (name, problem) => found.push(fault([...at, name], "lambda", problem, LAST_WORD));
  const bytes = bytesOf(object.get("key"));
  if (!isUtf8(bytes)) refuse("key", "key is not UTF-8 once it is decoded");
  else if (bytes.length > MAX_KEY_BYTES) refuse("key", `key is longer than ${MAX_KEY_BYTES} bytes`);
  if (object.get("size") instanceof JsonNumber && !object.get("size").isWhole) refuse("size", "must be written without a decimal point");
  return found;
}

/** A skipped message must still be what it says it is. */
function skipped(kind, content) {
  if (kind === "test") return [];
  const found = [];
  const refuse = (name, problem) => found.push(fault([name], "lambda", problem, LAST_WORD));
  if (content.get("source") !== "aws.s3") refuse("source", 'must be "aws.s3"');
  if (typeof content.get("detail-type") !== "string" || !content.get("detail-type")) refuse("detail-type", "must be the name of an event");
  return found;
}

function utf8(text) {
  return new TextEncoder().encode(text);
}

/** The bytes of a form-encoded key: + is a space, %XX a byte; a bare percent sign is left as it is. */
function decoded(key) {
  const bytes = utf8(key.replaceAll("+", " "));
  const found = [];
  for (let at = 0; at < bytes.length; at += 1) {
    const digits = bytes[at] === 0x25 ? String.fromCharCode(...bytes.slice(at + 1, at + 3)) : "";
    const isEscape = /^[0-9A-Fa-f]{2}$/u.test(digits);
    found.push(isEscape ? parseInt(digits, 16) : bytes[at]);
    if (isEscape) at += 2;
  }
  return Uint8Array.from(found);
}

function isUtf8(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch (error) {
    if (error instanceof TypeError) return false;
    throw error;
  }
}

/** The verdict with the line of each fault. */
function located(document, verdict) {
  const { faults, at } = verdict;
  if (!faults.length || document.isLine) {
    return { ...verdict, line: document.line, faults: faults.map((one) => ({ ...one, line: document.line })) };
  }
  const lines = linesOf(document.text, faults.map((one) => at.split("#")[0] || one.pointer));
  const placed = faults.map((one, index) => ({ ...one, line: document.line + lines[index] - 1 }));
  return { ...verdict, line: document.line, faults: placed };
}

function unreadable(error, line = 1) {
  return { pointer: "", keyword: "json", problem: error.message, remedy: error.remedy, line: line + error.line - 1 };
}

function unknown(isSkipped) {
  const [problem, remedy] = isSkipped
    ? ["announces no object that was created", "the Lambda would skip it: do not send it"]
    : ["is nothing that any contract describes", "choose the contract that it should keep"];
  return { pointer: "", keyword: "contract", problem, remedy };
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
  return Object.keys(TYPES).find((name) => TYPES[name](value)).replace(/^(?=[aeiou])/u, "an ").replace(/^(?!an )/u, "a ");
}

function counted(number) {
  return number.toLocaleString("en");
}
