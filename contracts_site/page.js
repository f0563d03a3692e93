"use strict";
// The form: checks when a message is pasted, written or loaded, and shows what is wrong and where.

const PAUSE = 300;
const MAX_SHOWN = 200;

const site = JSON.parse(document.getElementById("contracts").textContent);
const form = document.getElementById("form");
const message = document.getElementById("message");
const chosen = document.getElementById("contract");
const verdict = document.getElementById("verdict");
const faults = document.getElementById("faults");

/** Check what is in the form, and show the verdict. */
function check() {
  clearTimeout(check.timer);
  if (isBlank(message.value)) return show("", "No message yet: paste one, or load an example.", []);
  const profile = form.elements.profile.value;
  const verdicts = new Judge(site, profile, chosen.value).verdicts(message.value);
  const found = verdicts.flatMap(({ at, contract, faults: wrong }) => wrong.map((one) => ({ ...one, at, contract })));
  return show(found.length ? "invalid" : "valid", summary(verdicts, found, profile), found);
}

function checkSoon() {
  clearTimeout(check.timer);
  check.timer = setTimeout(check, PAUSE);
}

/** Check, and go to the verdict: it is in view, and a screen reader reads it. */
function checkAndGo() {
  check();
  faults.firstElementChild?.scrollIntoView({ block: "nearest" });
  verdict.scrollIntoView({ block: "nearest" });
  verdict.focus({ preventScroll: true });
}

function summary(verdicts, found, profile) {
  const labels = [...new Set(verdicts.map((one) => one.contract).filter(Boolean))].join(", ");
  const by = labels ? `, checked by ${labels}, ${profile}` : "";
  const all = verdicts.length === 1 ? "1 message" : `${counted(verdicts.length)} messages`;
  if (!found.length) {
    const isSkipped = verdicts.some((one) => one.contract === null);
    return `Valid: ${all}${by}.${isSkipped ? " The Lambda skips a message that announces no created object." : ""}`;
  }
  const wrong = verdicts.filter((one) => one.faults.length).length;
  const many = found.length === 1 ? "1 fault" : `${counted(found.length)} faults`;
  const among = verdicts.length === 1 ? "" : ` in ${counted(wrong)} of ${all}`;
  const shown = found.length > MAX_SHOWN ? `; the first ${MAX_SHOWN} are listed` : "";
  return `Invalid: ${many}${among}${by}${shown}.`;
}

function show(outcome, words, found) {
  verdict.dataset.outcome = outcome;
  verdict.textContent = words;
  faults.replaceChildren(...found.slice(0, MAX_SHOWN).map(row));
}

function row(one) {
  const place = one.at ? `${one.at}#${one.pointer}` : one.pointer || "(root)";
  const go = element("button", `line ${counted(one.line)}`);
  go.type = "button";
  go.addEventListener("click", () => select(one.line));
  const head = element("p", go, " ", element("code", place), " ", element("span", one.keyword));
  head.lastChild.className = "keyword";
  return element("li", head, element("p", `${one.problem}: ${one.remedy}`));
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** Show a line of the message. */
function select(line) {
  const before = message.value.split("\n").slice(0, line - 1).join("\n");
  const begin = before.length + (line > 1 ? 1 : 0);
  const end = message.value.indexOf("\n", begin);
  message.focus();
  message.setSelectionRange(begin, end === -1 ? message.value.length : end);
}

/** Offer only the profiles that the chosen contract has. */
function offerProfiles() {
  const one = site.contracts.find(({ label }) => label === chosen.value);
  const offered = [...form.elements.profile];
  for (const radio of offered) radio.disabled = Boolean(one) && !Object.hasOwn(one.profiles, radio.value);
  if (offered.find((radio) => radio.checked).disabled) offered.find((radio) => !radio.disabled).checked = true;
}

function tryExample(button, label = button.dataset.contract) {
  chosen.value = label;
  message.value = button.parentElement.querySelector("pre").textContent;
  if (button.dataset.profile) form.elements.profile.value = button.dataset.profile;
  offerProfiles();
  checkAndGo();
}

/** Load the first example of the chosen contract, or of the first one. */
function loadExample(kind) {
  const label = chosen.value || site.contracts[0].label;
  const examples = [...document.querySelectorAll(`button[data-contract="${label}"]`)];
  tryExample(examples.find((one) => (one.dataset.profile ? "invalid" : "valid") === kind), chosen.value);
}

window.addEventListener("error", (event) => show("invalid", `This page has failed: ${event.message}.`, []));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  checkAndGo();
});
form.addEventListener("change", ({ target }) => {
  if (target === message) return; // on its way to the button of a fault, which a new check would remove
  offerProfiles();
  check();
});
message.addEventListener("input", checkSoon);
message.addEventListener("paste", () => setTimeout(check));
document.getElementById("clear").addEventListener("click", () => {
  message.value = "";
  check();
  message.focus();
});
document.addEventListener("click", ({ target }) => {
  if (!(target instanceof HTMLButtonElement)) return;
  if (target.dataset.contract) tryExample(target);
  if (target.dataset.load) loadExample(target.dataset.load);
});
