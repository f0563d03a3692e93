"use strict";
// Reads JSON as the command line does: the same limits, the same lines. JSON.parse cannot do this alone: some browsers
// name no line, no browser limits the nesting, and 1.0 becomes 1. Objects have no prototype: `in` sees only their fields.

const MAX_DEPTH = 201;
const MAX_DIGITS = 4300;
const MAX_CHARACTERS = 16 * 2 ** 20;

const WHITE = /[ \t\r\n]*/uy;
const CHARACTERS = /[^"\\\u0000-\u001f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/uy;
const OTHER = /(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9])|true|false|null)/uy;

/** The text is not a document: why, what to do, and on which line. */
class Unreadable extends Error {
  constructor(problem, remedy, line = 1) {
    super(problem);
    this.remedy = remedy;
    this.line = line;
  }
}

/** The document in a text, or the `Unreadable` that says why there is none. */
function parsed(text) {
  if (isBlank(text)) return new Unreadable("is empty", "write one JSON document, or one on each line");
  if (text.startsWith("\ufeff")) return new Unreadable("begins with a byte order mark", "write UTF-8 without it");
  try {
    return new Reader(text).document();
  } catch (error) {
    if (error instanceof Unreadable) return error;
    throw error;
  }
}

function isBlank(text) {
  return /^[ \t\r\n\v\f]*$/u.test(text);
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** A step of a JSON Pointer (RFC 6901). */
function escaped(name) {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}

/** Reads one document; `places`, a Map, is given the line and the text of each value by its pointer. */
class Reader {
  constructor(text, places) {
    this.text = text;
    this.places = places;
    this.at = 0;
    this.line = 1;
    this.lineAt = 0;
    this.depth = 0;
  }

  document() {
    const value = this.value("");
    if (this.peek()) this.fail("something follows the end of the document");
    return value;
  }

  value(pointer) {
    const mark = this.peek();
    const place = { line: this.line };
    this.places?.set(pointer, place);
    if (mark === "{" || mark === "[") return this.nested(mark, pointer);
    place.text = mark === '"' ? this.string() : this.take(OTHER);
    if (!place.text) this.fail(mark ? "a value is expected" : "the document does not end");
    if (place.text.length > MAX_DIGITS && /^-?[0-9]+$/u.test(place.text)) {
      this.fail(`a number has more than ${MAX_DIGITS} digits`);
    }
    return JSON.parse(place.text);
  }

  nested(mark, pointer) {
    this.depth += 1;
    if (this.depth > MAX_DEPTH) this.fail(`it is nested deeper than ${MAX_DEPTH} levels`);
    this.at += 1;
    const found = mark === "{" ? this.object(pointer) : this.array(pointer);
    this.depth -= 1;
    return found;
  }

  object(pointer) {
    const found = Object.create(null);
    if (this.skip("}")) return found;
    do {
      if (this.peek() !== '"') this.fail("the name of a field is expected, in double quotes");
      const name = JSON.parse(this.string());
      if (!this.skip(":")) this.fail("a colon is expected");
      found[name] = this.value(this.places && `${pointer}/${escaped(name)}`);
    } while (this.skip(","));
    if (!this.skip("}")) this.fail("a comma or } is expected");
    return found;
  }

  array(pointer) {
    const found = [];
    if (this.skip("]")) return found;
    do found.push(this.value(this.places && `${pointer}/${found.length}`));
    while (this.skip(","));
    if (!this.skip("]")) this.fail("a comma or ] is expected");
    return found;
  }

  string() {
    const begin = this.at;
    this.at += 1;
    while (this.take(CHARACTERS)); // one expression for the whole would overflow the stack
    if (this.text[this.at] !== '"') this.fail("a string has no end, a control character or an unknown escape");
    this.at += 1;
    const text = this.text.slice(begin, this.at);
    if (text.includes("\\u") && /\p{Surrogate}/u.test(JSON.parse(text))) this.fail("a string has half a character");
    return text;
  }

  /** The first character of what comes next; empty at the end. White space is passed: only there lines end. */
  peek() {
    const begin = this.at;
    const white = this.take(WHITE);
    for (let end = white.indexOf("\n"); end !== -1; end = white.indexOf("\n", end + 1)) {
      this.line += 1;
      this.lineAt = begin + end + 1;
    }
    return this.text[this.at] ?? "";
  }

  skip(mark) {
    const isHere = this.peek() === mark;
    if (isHere) this.at += 1;
    return isHere;
  }

  take(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? "";
    this.at += found.length;
    return found;
  }

  fail(problem) {
    const column = [...this.text.slice(this.lineAt, this.at)].length + 1;
    throw new Unreadable(`is not JSON: ${problem} at column ${column}`, "write JSON (RFC 8259)", this.line);
  }
}

/** The documents of a text, one or one a line; `isLine` where it has a line of its own. */
function documents(text) {
  if (text.length > MAX_CHARACTERS) {
    return [{ line: 1, text: "", content: new Unreadable("is longer than 16 MiB", "check it with `aggregator contract validate`") }];
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
  return content !== null && typeof content === "object" && !(content instanceof Unreadable);
}

/** Where the values of a text are; it is read when the first is asked for, and once. */
class Places {
  constructor(text) {
    this.text = text;
  }

  /** The line and the text of the value at a pointer; for a pointer that leads nowhere, those of its parent. */
  at(pointer) {
    this.known ??= this.read();
    let known = pointer;
    while (!this.known.has(known)) known = known.slice(0, known.lastIndexOf("/"));
    return this.known.get(known);
  }

  read() {
    const places = new Map();
    new Reader(this.text, places).document();
    return places;
  }
}
