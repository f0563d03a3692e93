"use strict";
// Reads JSON as the command line does: the same limits, the last of two equal names, whole numbers told from others.
// JSON.parse would do but for three things: each browser words its errors in its own way, one of them without a place;
// it takes any nesting, so that what follows overflows; and it forgets whether 1 was written as 1.0.

const MAX_DEPTH = 201;
const MAX_DIGITS = 4300;
const MAX_CHARACTERS = 16 * 2 ** 20;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?<fraction>\.[0-9]+)?(?<exponent>[eE][+-]?[0-9]+)?/uy;
const PLAIN = /[^"\\\u0000-\u001f]+/uy;
const WHITE = /[ \t\r\n]*/uy;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const WORDS = { true: true, false: false, null: null };

/** A number, and whether it was written without a point and an exponent. */
class JsonNumber {
  constructor(value, isWhole) {
    this.value = value;
    this.isWhole = isWhole;
  }
}

/** What stands in a document's place is none: why, what to do, and on which line of it. */
class Unreadable extends Error {
  constructor(problem, remedy, line = 1) {
    super(problem);
    this.remedy = remedy;
    this.line = line;
  }
}

/** The document that a text says; objects are Maps. `places`, a Map, is given the offset of each value's pointer. */
function read(text, places) {
  return new Reader(text, places).document();
}

/** The document, or the `Unreadable` that says why there is none. */
function parsed(text) {
  if (isBlank(text)) return new Unreadable("is empty", "write one JSON document, or one on each line");
  if (text.startsWith("\ufeff")) return new Unreadable("begins with a byte order mark", "write UTF-8 without one");
  try {
    return read(text);
  } catch (error) {
    if (error instanceof Unreadable) return error;
    throw error;
  }
}

function isBlank(text) {
  return /^[ \t\r\n\v\f]*$/u.test(text);
}

/** A step of a JSON Pointer (RFC 6901). */
function escaped(name) {
  return String(name).replaceAll("~", "~0").replaceAll("/", "~1");
}

class Reader {
  constructor(text, places) {
    this.text = text;
    this.places = places;
    this.at = 0;
    this.depth = 0;
  }

  document() {
    const value = this.value("");
    this.white();
    if (this.at < this.text.length) this.fail("something follows the end of the document");
    return value;
  }

  value(pointer) {
    this.white();
    this.places?.set(pointer, this.at);
    const mark = this.text[this.at];
    if (mark === "{") return this.nested(() => this.object(pointer));
    if (mark === "[") return this.nested(() => this.array(pointer));
    if (mark === '"') return this.string();
    return this.number() ?? this.word();
  }

  nested(inner) {
    this.depth += 1;
    if (this.depth > MAX_DEPTH) this.fail(`it is nested deeper than ${MAX_DEPTH} levels`);
    this.at += 1;
    const value = inner();
    this.depth -= 1;
    return value;
  }

  object(pointer) {
    const found = new Map();
    if (this.next("}")) return found;
    do {
      this.white();
      if (this.text[this.at] !== '"') this.fail("the name of a field is expected, in double quotes");
      const name = this.string();
      if (!this.next(":")) this.fail("a colon is expected");
      found.set(name, this.value(`${pointer}/${this.places ? escaped(name) : ""}`));
    } while (this.next(","));
    if (!this.next("}")) this.fail("a comma or } is expected");
    return found;
  }

  array(pointer) {
    const found = [];
    if (this.next("]")) return found;
    do found.push(this.value(`${pointer}/${found.length}`));
    while (this.next(","));
    if (!this.next("]")) this.fail("a comma or ] is expected");
    return found;
  }

  string() {
    this.at += 1;
    let found = "";
    for (;;) {
      found += this.taken(PLAIN)?.[0] ?? "";
      const mark = this.text[this.at];
      if (mark === '"') break;
      if (mark !== "\\") this.fail(mark ? "a control character stands in a string" : "a string does not end");
      found += this.escape();
    }
    this.at += 1;
    return found;
  }

  escape() {
    const mark = this.text[this.at + 1] ?? "";
    if (Object.hasOwn(ESCAPES, mark)) {
      this.at += 2;
      return ESCAPES[mark];
    }
    const pair = this.taken(/\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}/uy);
    const one = pair ?? this.taken(/\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}/uy);
    if (!one) this.fail("this is no escape of JSON, or half a character");
    return String.fromCharCode(...one[0].slice(2).split("\\u").map((digits) => parseInt(digits, 16)));
  }

  number() {
    const found = this.taken(NUMBER);
    if (!found) return undefined;
    if (/[0-9]/u.test(this.text[this.at] ?? "")) this.fail("a number does not begin with a zero");
    const { fraction, exponent } = found.groups;
    const isWhole = fraction === undefined && exponent === undefined;
    if (isWhole && found[0].length > MAX_DIGITS) this.fail(`a number has more than ${MAX_DIGITS} digits`);
    return new JsonNumber(Number(found[0]), isWhole);
  }

  word() {
    const found = this.taken(/true|false|null/uy);
    if (!found) this.fail(this.at < this.text.length ? "a value is expected" : "the document does not end");
    return WORDS[found[0]];
  }

  next(mark) {
    this.white();
    if (this.text[this.at] !== mark) return false;
    this.at += 1;
    return true;
  }

  white() {
    this.taken(WHITE);
  }

  taken(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  fail(problem) {
    const before = this.text.slice(0, this.at);
    const line = lineOf(this.text, this.at);
    const column = [...before.slice(before.lastIndexOf("\n") + 1)].length + 1;
    throw new Unreadable(`is not JSON: ${problem} at line ${line} column ${column}`, "write JSON (RFC 8259)", line);
  }
}

function lineOf(text, offset) {
  let line = 1;
  for (let at = text.indexOf("\n"); at !== -1 && at < offset; at = text.indexOf("\n", at + 1)) line += 1;
  return line;
}

/** The documents of a text, one or one a line; `isLine` where it has a line of its own. */
function documents(text) {
  if (text.length > MAX_CHARACTERS) {
    return [{ line: 1, text: "", content: new Unreadable("is longer than 16 MiB", "no message, batch or index is") }];
  }
  const lines = text.split("\n").map((line, index) => ({ line: index + 1, text: line }));
  const [first = { line: 1, text: "" }, ...others] = lines.filter((line) => !isBlank(line.text));
  if (parsed(first.text) instanceof Unreadable) {
    const whole = lines.slice(first.line - 1).map((line) => line.text).join("\n");
    const content = parsed(whole);
    const isLines = content instanceof Unreadable && others.length && isDocument(others[0].text);
    if (!isLines) return [{ line: first.line, text: whole, content, isLine: false }];
  }
  return [first, ...others].map((line) => ({ ...line, content: parsed(line.text), isLine: true }));
}

function isDocument(text) {
  const content = parsed(text);
  return content instanceof Map || Array.isArray(content);
}

/** Where the values of a document begin; its text is read when the first is asked for, and once. */
class Lines {
  constructor(text) {
    this.text = text;
  }

  /** The line on which the value at a pointer begins; a pointer that leads nowhere has its parent's. */
  of(pointer) {
    this.begins ??= this.read();
    let known = pointer;
    while (!this.begins.has(known)) known = known.slice(0, known.lastIndexOf("/"));
    return this.begins.get(known);
  }

  read() {
    const places = new Map();
    read(this.text, places);
    let [line, at] = [1, 0];
    const byPlace = [...places].sort(([, one], [, other]) => one - other); // a name that stands there twice has its last
    return new Map(byPlace.map(([pointer, offset]) => {
      for (let next = this.text.indexOf("\n", at); next !== -1 && next < offset; next = this.text.indexOf("\n", at)) {
        [line, at] = [line + 1, next + 1];
      }
      return [pointer, line];
    }));
  }
}
