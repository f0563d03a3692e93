// The judge of the page, without the page: node judge_by_the_page.mjs JUDGE.js DATA.json < CALLS.jsonl
// A call is [profile, label or null, text]; its answer, a line of JSON, is the verdicts.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";

const [script, data] = process.argv.slice(2).map((name) => readFileSync(name, "utf8"));
const Judge = runInThisContext(`${script}\nJudge`);
const site = JSON.parse(data);

for await (const line of createInterface({ input: process.stdin })) {
  const [profile, label, text] = JSON.parse(line);
  console.log(JSON.stringify(new Judge(site, profile, label).verdicts(text)));
}
