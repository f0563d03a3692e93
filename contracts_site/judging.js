"use strict";
// Judges messages as `aggregator contract validate` does: the same pointers, keywords and lines. This follows
// aggregator/contracts/validation.py; tests/contracts/test_site.py runs both on every example and its mutants.

const LAST_WORD = "no schema says this, but the Lambda rejects the message";
const WHOLE = "write it without a decimal point or an exponent: 3, not 3.0";
const MAX_KEY_BYTES = 1024;

const CONTRACT_OF_KIND = { s3: "s3-notification", eventbridge: "eventbridge-notification" };
const TELLING = ["Records", "detail-type"];
const SKIPPED_KINDS = ["test", "eventbridge-other"];

// aggregator/events.py has the list, with its sources
const NO_CREATION = [
  "ObjectRemoved", "ObjectRestore", "ObjectTagging", "ObjectAcl", "ObjectAnnotation", "ObjectRetention",
  "LifecycleExpiration", "LifecycleTransition", "IntelligentTiering", "Replication", "ReducedRedundancyLostObject",
];
const NO_CREATION_TYPES = [
  "Object Deleted", "Object Restore Initiated", "Object Restore Completed", "Object Restore Expired",
  "Object Storage Class Changed", "Object Access Tier Changed", "Object ACL Updated", "Object Tags Added",
  "Object Tags Deleted",
];
const NEITHER = "creates no object that is understood, and is not known to create none";
const ONLY_CREATIONS = "send only events that create objects, such as ObjectCreated:Put";
const SEVERAL = "is several notifications at once";

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
    return documents(text).flatMap((document) => {
      const { line, content } = document;
      if (content instanceof Unreadable) return [{ line, at: "", contract: null, faults: [noDocument(content, line)] }];
      const lines = new Lines(document.text);
      return this.document(document).map((verdict) => located(document, verdict, lines));
    });
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
      const isParsed = !faults.length && Object.values(CONTRACT_OF_KIND).includes(one.name);
      return { at, contract: one.label, faults: isParsed ? this.byTheLambda(kind, content) : faults };
    }
    const faults = SKIPPED_KINDS.includes(kind) ? skipped(kind, content) : [];
    const isTaken = SKIPPED_KINDS.includes(kind) && this.profile === "consumer";
    return { at, contract: null, faults: isTaken || faults.length ? faults : [unknown(kind, content)] };
  }

  /** What no schema says: aggregator/contracts/gate/agreement.py has the whole list. */
  byTheLambda(kind, content) {
    if (kind === "several") return [fault([], "lambda", SEVERAL, LAST_WORD)];
    if (kind === "eventbridge") return objectFaults(content.get("detail").get("object"), ["detail", "object"], utf8);
    if (kind !== "s3") return [];
    return content.get("Records").flatMap((record, index) => this.recordFaults(record, index));
  }

  recordFaults(record, index) {
    const name = record.get("eventName");
    const at = ["Records", index];
    if (name.startsWith("s3:ObjectCreated:")) {
      const plain = new Map(record).set("eventName", name.slice("s3:".length));
      const schema = this.named("s3-notification").profiles.consumer;
      const before = new Array(index).fill(new Map([["eventSource", "aws:s3"], ["eventName", "x"]]));
      const found = faultsOf(schema, new Map([["Records", [...before, plain]]]));
      if (found.length) return found.map((one) => ({ ...one, keyword: "lambda" }));
    } else if (!name.startsWith("ObjectCreated:")) {
      const isKnown = NO_CREATION.includes(name.replace(/^s3:/u, "").split(":")[0]);
      return isKnown ? [] : [fault([...at, "eventName"], "lambda", NEITHER, ONLY_CREATIONS)];
    }
    return objectFaults(record.get("s3").get("object"), [...at, "s3", "object"], decoded);
  }

  named(name) {
    return this.contracts.find((one) => one.name === name);
  }
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
  const isSns = body.get("Type") === "Notification";
  const told = [...["Records", "detail-type"].filter((field) => body.has(field)), ...(isSns ? ["Type"] : [])];
  if (told.length > 1) return "several";
  if (isSns) return "sns";
  if (told[0] === "Records") return "s3";
  if (told.length) return body.get("detail-type") === "Object Created" ? "eventbridge" : "eventbridge-other";
  const isPart = ([name, value]) =>
    ["detail", "Type", "Message"].includes(name) || value instanceof Map || Array.isArray(value);
  return body.get("Event") === "s3:TestEvent" && ![...body].some(isPart) ? "test" : null;
}


function objectFaults(object, at, bytesOf) {
  const found = [];
  const refuse = (name, problem, remedy = LAST_WORD) => found.push(fault([...at, name], "lambda", problem, remedy));
  const bytes = bytesOf(object.get("key"));
  if (!isUtf8(bytes)) refuse("key", "key is not UTF-8 once it is decoded");
  else if (bytes.length > MAX_KEY_BYTES) refuse("key", `key is longer than ${MAX_KEY_BYTES} bytes`);
  const size = object.get("size");
  if (size instanceof JsonNumber && !size.isWhole) refuse("size", "must be a whole number", WHOLE);
  return found;
}

/** A skipped message must still be what it says it is. */
function skipped(kind, content) {
  if (kind === "test") return [];
  const found = [];
  const refuse = (name, problem, remedy = LAST_WORD) => found.push(fault([name], "lambda", problem, remedy));
  if (content.get("source") !== "aws.s3") refuse("source", 'must be "aws.s3"');
  const detail = content.get("detail-type");
  if (typeof detail !== "string" || !detail) refuse("detail-type", "must be the name of an event");
  else if (!found.length && !NO_CREATION_TYPES.includes(detail)) refuse("detail-type", NEITHER, ONLY_CREATIONS);
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
function located(document, verdict, lines) {
  const { faults, at } = verdict;
  if (!faults.length || document.isLine) {
    return { ...verdict, line: document.line, faults: faults.map((one) => ({ ...one, line: document.line })) };
  }
  const lineOfFault = (one) => document.line + lines.of(at.split("#")[0] || one.pointer) - 1;
  return { ...verdict, line: document.line, faults: faults.map((one) => ({ ...one, line: lineOfFault(one) })) };
}

function unreadable(error) {
  return { pointer: "", keyword: "json", problem: error.message, remedy: error.remedy };
}

/** The fault of what should be a document and begins on `line`: its own line is told beside it, and not once more in it. */
function noDocument(error, line) {
  const problem = error.message.replace(/ at line [0-9]+ column/u, " at column");
  return { ...unreadable(error), problem, line: line + error.line - 1 };
}

function unknown(kind, content) {
  if (kind === "several") {
    return { pointer: "", keyword: "contract", problem: SEVERAL, remedy: "send each of them as a message of its own" };
  }
  const letters = (name) => name.toLowerCase().replace(/[^a-z0-9]/gu, "");
  const names = content instanceof Map ? [...content.keys()].map(letters) : [];
  const instead = TELLING.find((name) => names.includes(letters(name)));
  const [problem, remedy] = SKIPPED_KINDS.includes(kind)
    ? ["announces no object that was created", "the Lambda would skip it: do not send it"]
    : ["is nothing that any contract describes", instead ? `write ${instead}` : "choose the contract that it should keep"];
  return { pointer: "", keyword: "contract", problem, remedy };
}
