"use strict";
// Checks messages as `aggregator contract validate` does: the same faults on the same lines. It unwraps a message, finds
// its contract, calls the code that ajv generates, and adds the rules of the Lambda that a schema cannot express.

const LAST_WORD = "correct it; the schema cannot express this rule, but the Lambda rejects the message";
const WHOLE = "write it without a decimal point or an exponent: 3, not 3.0";
const MAX_KEY_BYTES = 1024;

const CONTRACT_OF_KIND = { s3: "s3-notification", eventbridge: "eventbridge-notification" };
const TELLING = ["Records", "detail-type"];
const SKIPPED_KINDS = ["test", "eventbridge-other"];

const UNKNOWN = "is not a creation of an object, and is not on the list of events that are skipped";
const ONLY_CREATIONS = "send only events that create objects, such as ObjectCreated:Put";
const SEVERAL = "is several notifications at once";

/** Checks by one contract, or by the one that fits each message; `site` is the data of the page. */
class Judge {
  constructor({ contracts, noCreation }, profile, label) {
    this.contracts = contracts;
    this.noCreation = noCreation;
    this.profile = profile;
    this.chosen = label ? contracts.find((one) => one.label === label) : null;
  }

  /** A verdict for each message of a text: its line, the pointer of the text that holds it, contract and faults. */
  verdicts(text) {
    return documents(text).flatMap((document) => {
      const { line, content } = document;
      if (content instanceof Unreadable) {
        const faults = [{ ...unreadable(content), line: line + content.line - 1 }];
        return [{ line, at: "", contract: null, faults }];
      }
      const places = new Places(document.text);
      return this.document(document).map((verdict) => located(document, verdict, places));
    });
  }

  document({ text, content }) {
    const isWhole = this.chosen && !Object.values(CONTRACT_OF_KIND).includes(this.chosen.name);
    if (isWhole) return [this.message({ at: "", text, content })];
    const verdicts = messages(text, content).map((message) => this.message(message));
    if (!isBatch(content)) return verdicts;
    const batch = this.named("sqs-batch");
    const faults = this.bySchema(batch, "consumer", content);
    return faults.length ? [{ at: "", contract: batch.label, faults }, ...verdicts] : verdicts;
  }

  message({ at, text, content }) {
    if (content instanceof Unreadable) return { at, contract: null, faults: [unreadable(content, `line ${content.line}: `)] };
    const kind = this.kindOf(content);
    const one = this.chosen ?? this.named(CONTRACT_OF_KIND[kind]);
    if (one) {
      const faults = this.bySchema(one, this.profile, content);
      const other = faults.length ? this.other(kind, one, content) : null;
      if (other) return { at, contract: one.label, faults: [other] };
      const isParsed = !faults.length && Object.values(CONTRACT_OF_KIND).includes(one.name);
      return { at, contract: one.label, faults: isParsed ? this.byLambda(kind, content, new Places(text)) : faults };
    }
    const isTaken = SKIPPED_KINDS.includes(kind) && this.profile === "consumer";
    return { at, contract: null, faults: isTaken ? [] : [unknown(kind, content)] };
  }

  /** That a message which does not fit the chosen contract is made for another one, if it is. */
  other(kind, one, content) {
    const kinds = Object.values(CONTRACT_OF_KIND);
    const other = this.named(isBatch(content) ? "sqs-batch" : CONTRACT_OF_KIND[kind]);
    if (!other || other.name === one.name) return null;
    const isTold = kinds.includes(one.name) && kinds.includes(other.name);
    if (!isTold && this.bySchema(other, "consumer", content).length) return null;
    return fault([], "contract", `is an ${other.name}`, `choose ${other.label} as its contract`);
  }

  bySchema(one, profile, content) {
    return faultsOf(VALIDATORS[`${one.label} ${profile}`], one.profiles[profile], content);
  }

  /** Rules that a schema cannot express: aggregator/contracts/gate/agreement.py has the whole list. */
  byLambda(kind, content, places) {
    if (kind === "several") return [fault([], "lambda", SEVERAL, LAST_WORD)];
    if (kind === "eventbridge") return objectFaults(content.detail.object, ["detail", "object"], places, plain);
    if (kind !== "s3") return [];
    return content.Records.flatMap((record, index) => this.recordFaults(record, index, places));
  }

  recordFaults(record, index, places) {
    const name = record.eventName;
    const at = ["Records", index];
    if (name.startsWith("s3:ObjectCreated:")) {
      const unprefixed = { Records: [{ ...record, eventName: name.slice("s3:".length) }] };
      const found = this.bySchema(this.named("s3-notification"), "consumer", unprefixed);
      const placed = (one) => ({ ...one, keyword: "lambda", pointer: one.pointer.replace("/0", `/${index}`) });
      if (found.length) return found.map(placed);
    } else if (!name.startsWith("ObjectCreated:")) {
      const family = name.replace(/^s3:/u, "").split(":")[0];
      const isKnown = this.noCreation.includes(family) && !family.includes(" ");
      return isKnown ? [] : [fault([...at, "eventName"], "lambda", UNKNOWN, ONLY_CREATIONS)];
    }
    return objectFaults(record.s3.object, [...at, "s3", "object"], places, formDecoded);
  }

  /** What a message is made for; an event of EventBridge that the Lambda does not skip should be a notification. */
  kindOf(content) {
    const kind = kindOf(content);
    if (kind !== "eventbridge-other") return kind;
    const type = content["detail-type"];
    const isKnown = this.noCreation.includes(type) && type.includes(" ");
    return content.source === "aws.s3" && isKnown ? kind : "eventbridge";
  }

  named(name) {
    return this.contracts.find((one) => one.name === name);
  }
}

/** What a document carries to the queue: itself, the bodies of an SQS event, what SNS envelopes hold. */
function messages(text, content) {
  if (!isBatch(content)) return [outOfSns({ at: "", text, content })];
  return content.Records.flatMap((record, index) => {
    const body = isObject(record) ? record.body : null;
    return typeof body === "string" ? [outOfSns(inside(`/Records/${index}/body`, body))] : [];
  });
}

function isBatch(content) {
  const records = isObject(content) ? content.Records : null;
  return Array.isArray(records) && records.some((one) => isObject(one) && one.eventSource === "aws:sqs");
}

function outOfSns(message) {
  const { at, content } = message;
  const inner = isObject(content) && content.Type === "Notification" ? content.Message : null;
  return typeof inner === "string" ? inside(at ? `${at}#/Message` : "/Message", inner) : message;
}

function inside(at, text) {
  return { at, text, content: parsed(text) };
}

function kindOf(body) {
  if (!isObject(body)) return null;
  const isSns = body.Type === "Notification";
  const told = [...TELLING.filter((field) => field in body), ...(isSns ? ["Type"] : [])];
  if (told.length > 1) return "several";
  if (isSns) return "sns";
  if (told[0] === "Records") return "s3";
  if (told.length) return body["detail-type"] === "Object Created" ? "eventbridge" : "eventbridge-other";
  const isPart = ([name, value]) =>
    ["detail", "Type", "Message"].includes(name) || (value !== null && typeof value === "object");
  return body.Event === "s3:TestEvent" && !Object.entries(body).some(isPart) ? "test" : null;
}

function objectFaults({ key, size }, at, places, decode) {
  const found = [];
  const reject = (name, problem, remedy = LAST_WORD) => found.push(fault([...at, name], "lambda", problem, remedy));
  const bytes = bytesOf(key, decode);
  if (!bytes) reject("key", "key is not UTF-8 once it is decoded");
  else if (bytes.length > MAX_KEY_BYTES) reject("key", `key is longer than ${MAX_KEY_BYTES} bytes`);
  const isNumber = typeof size === "number";
  if (isNumber && /[.eE]/u.test(places.at(`/${[...at, "size"].join("/")}`).text)) {
    reject("size", "must be a whole number", WHOLE);
  }
  return found;
}

/** The bytes of a key, or null if they are not UTF-8. */
function bytesOf(key, decode) {
  try {
    return new TextEncoder().encode(decode(key));
  } catch (error) {
    if (error instanceof URIError) return null;
    throw error;
  }
}

function plain(key) {
  return key;
}

/** A form-encoded key: + is a space, %XX a byte; a percent sign without two digits is left as it is. */
function formDecoded(key) {
  return decodeURIComponent(key.replaceAll("+", " ").replace(/%(?![0-9A-Fa-f]{2})/gu, "%25"));
}

/** The verdict with the line of each fault. */
function located(document, verdict, places) {
  const lineOf = ({ pointer }) => document.line + places.at(verdict.at.split("#")[0] || pointer).line - 1;
  const faults = verdict.faults.map((one) => ({ ...one, line: document.isLine ? document.line : lineOf(one) }));
  return { ...verdict, line: document.line, faults };
}

function unreadable({ message, remedy }, place = "") {
  return fault([], "json", place + message, remedy);
}

function unknown(kind, content) {
  if (kind === "several") {
    return fault([], "contract", SEVERAL, "send each of them as a message of its own");
  }
  if (SKIPPED_KINDS.includes(kind)) {
    return fault([], "contract", "announces no created object", "the Lambda skips it: do not send it");
  }
  const names = isObject(content) ? Object.keys(content).map(letters) : [];
  const meant = TELLING.find((name) => names.includes(letters(name)));
  return fault([], "contract", "fits no contract", meant ? `write ${meant}` : "choose its contract above the message");
}
