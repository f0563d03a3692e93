"use strict";
// The form: judges when a message is pasted or written, and says what is wrong where.

const PAUSE = 300;
const MAX_SHOWN = 200;

const contracts = JSON.parse(document.getElementById("contracts").textContent);
const form = document.getElementById("form");
const message = document.getElementById("message");
const chosen = document.getElementById("contract");
const verdict = document.getElementById("verdict");
const faults = document.getElementById("faults");

/** Judge what is in the form, and show the verdict. */
function judge() {
  clearTimeout(judge.timer);
  if (isBlank(message.value)) return show("", "Nothing to judge yet.", []);
  const profile = form.elements.profile.value;
  const verdicts = new Judge(contracts, profile, chosen.value).verdicts(message.value);
  const found = verdicts.flatMap(({ at, contract, faults: wrong }) => wrong.map((one) => ({ ...one, at, contract })));
  return show(found.length ? "invalid" : "valid", summary(verdicts, found, profile), found);
}

function judgeSoon() {
  clearTimeout(judge.timer);
  judge.timer = setTimeout(judge, PAUSE);
}

function summary(verdicts, found, profile) {
  const labels = [...new Set(verdicts.map((one) => one.contract).filter(Boolean))].join(", ");
  const by = labels ? ` by ${labels}, ${profile}` : "";
  const all = verdicts.length === 1 ? "1 message" : `${counted(verdicts.length)} messages`;
  if (!found.length) {
    const isSkipped = verdicts.some((one) => one.contract === null);
    return `Valid: ${all}${by}.${isSkipped ? " What announces no new object is taken and skipped." : ""}`;
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

/** Only the profiles that the chosen contract has can be chosen. */
function offerProfiles() {
  const one = contracts.find(({ label }) => label === chosen.value);
  const offered = [...form.elements.profile];
  for (const radio of offered) radio.disabled = Boolean(one) && !Object.hasOwn(one.profiles, radio.value);
  if (offered.find((radio) => radio.checked).disabled) offered.find((radio) => !radio.disabled).checked = true;
}

function tryExample(button) {
  chosen.value = button.dataset.contract;
  message.value = button.parentElement.querySelector("pre").textContent;
  if (button.dataset.profile) form.elements.profile.value = button.dataset.profile;
  offerProfiles();
  judge();
  document.getElementById("check").scrollIntoView();
  message.focus({ preventScroll: true });
}

window.addEventListener("error", (event) => show("invalid", `This page has failed: ${event.message}.`, []));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  judge();
});
form.addEventListener("change", ({ target }) => {
  if (target === message) return; // on its way to a fault's button, which judging again would take away
  offerProfiles();
  judge();
});
message.addEventListener("input", judgeSoon);
message.addEventListener("paste", () => setTimeout(judge));
document.getElementById("clear").addEventListener("click", () => {
  message.value = "";
  judge();
  message.focus();
});
document.addEventListener("click", ({ target }) => {
  if (target instanceof HTMLButtonElement && target.dataset.contract) tryExample(target);
});
