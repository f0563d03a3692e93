// The judge of the page, without the page: node judge_by_the_page.mjs CONTRACTS.json < CALLS.jsonl
// A call is [profile, label or null, text]; its answer, a line of JSON, is the verdicts or the error.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";

const source = (name) => readFileSync(new URL(`../contracts_site/${name}`, import.meta.url), "utf8");
const { Judge, KEYWORDS } = runInThisContext(
  [...["reading.js", "schema.js", "judging.js"].map(source), "({ Judge, KEYWORDS })"].join("\n"),
);
const contracts = JSON.parse(readFileSync(process.argv[2], "utf8"));

const answer = ([profile, label, text]) => {
  if (profile === "keywords") return [...KEYWORDS];
  try {
    return new Judge(contracts, profile, label).verdicts(text);
  } catch (error) {
    return { error: error.message };
  }
};

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(answer(JSON.parse(line))));
}
