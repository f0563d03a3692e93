"""The page as people meet it: in a browser, on a phone, by keyboard, in the dark, and with nothing that leaves it."""

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from aggregator.contracts.catalog import published
from contracts_site.page import page
from contracts_site.validators import are_tools_here
from tests.support import ROOT
from tests.support.browser import chromium, chromium_is_here

pytestmark = [
    pytest.mark.once,
    chromium_is_here,
    pytest.mark.skipif(not are_tools_here(), reason="ajv is not installed: npm ci --prefix contracts/snippets/node"),
]

CONTRACTS = ROOT / "contracts"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GOOD = json.dumps(published("s3-notification/v1/examples/valid/put.json"), indent=2)
BAD = json.dumps(published("s3-notification/v1/examples/invalid/key-missing.json"), indent=2)

TEXTS = """
const seen = (e) => e.checkVisibility({ visibilityProperty: true });
const backgroundOf = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "none";
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = new Map();
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !seen(e)) continue;
  const pair = [getComputedStyle(e).color, backgroundOf(e)];
  if (!found.has(pair.join())) found.set(pair.join(), [...pair, e.tagName + "." + e.className]);
}
const message = document.getElementById("message");
return [...found.values(), [getComputedStyle(message).color, backgroundOf(message), "TEXTAREA"]];
"""
"""Every pair of colours that a text of the page has, with an element that has it."""

FOCUS = """
const e = document.activeElement, style = getComputedStyle(e);
const visible = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
window.numbered ??= [...document.querySelectorAll("a, button, select, textarea, summary, input")];
return [window.numbered.indexOf(e), visible];
"""
REACHABLE = """
return window.numbered.map((e, index) => [e, index])
  .filter(([e]) => e.checkVisibility() && !e.disabled && !(e.type === "radio" && !e.checked)).map(([, index]) => index);
"""


class _Server(ThreadingHTTPServer):
    """Serves a folder, and remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))


class _Handler(SimpleHTTPRequestHandler):
    server: _Server

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        self.server.asked.append(f"{self.command} {self.path}")
        return parsed

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "contracts.html").write_text(page(CONTRACTS, COMMIT), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def site(browser: Chrome, folder: Path) -> Chrome:
    """The page, just opened from the disk."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get((folder / "contracts.html").as_uri())
    return browser


def test_a_good_message_is_called_valid(site: Chrome) -> None:
    _paste(site, GOOD)

    assert _verdict(site) == "Valid: 1 message, checked by s3-notification@1, producer."
    assert _faults(site) == []


def test_a_bad_message_is_refused_with_line_pointer_keyword_problem_and_remedy(site: Chrome) -> None:
    _paste(site, BAD)

    assert _verdict(site) == "Invalid: 1 fault, checked by s3-notification@1, producer."
    key = published("s3-notification/v1/producer.schema.json")["$defs"]["NotifiedObject"]["properties"]["key"]
    told = f"line 11 /Records/0/s3/object/key required\nis missing: write key: {key['description']}"
    assert _faults(site) == [told]


def test_the_consumer_takes_what_the_producer_may_not_write(site: Chrome) -> None:
    unknown = published("s3-notification/v1/examples/invalid/unknown-field-of-s3.json")

    _paste(site, json.dumps(unknown))
    as_producer = _verdict(site)
    site.find_element(By.CSS_SELECTOR, "[value=consumer]").click()

    assert as_producer == "Invalid: 1 fault, checked by s3-notification@1, producer."
    assert _verdict(site) == "Valid: 1 message, checked by s3-notification@1, consumer."


def test_a_whole_sqs_event_is_unwrapped_and_a_fault_shown_on_its_line(site: Chrome) -> None:
    bodies = [{"messageId": "1", "eventSource": "aws:sqs", "body": body} for body in (GOOD, BAD)]

    _paste(site, json.dumps({"Records": bodies}, indent=2))
    site.find_element(By.CSS_SELECTOR, "#faults button").click()

    assert _verdict(site) == "Invalid: 1 fault in 1 of 2 messages, checked by s3-notification@1, producer."
    assert _faults(site)[0].startswith("line 11 /Records/1/body#/Records/0/s3/object/key required\n")
    selected = "const m = document.getElementById('message'); return m.value.slice(m.selectionStart, m.selectionEnd)"
    assert site.execute_script(selected) == f'      "body": {json.dumps(BAD)}'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"Records": [\n  oops]}', "is not JSON: a value is expected at column 3: write JSON (RFC 8259)"),
        ("[" * 100_000, "is not JSON: it is nested deeper than 201 levels at column 202: write JSON (RFC 8259)"),
        (
            GOOD.replace('"size": ', f'"size": -{"9" * 999}'),
            "is less than 0: write size: bytes of the object",
        ),
        ("{}", "fits no contract: choose its contract above the message"),
    ],
    ids=["no JSON", "deep nesting", "a huge number", "an unknown message"],
)
def test_whatever_is_pasted_is_answered_in_one_line(site: Chrome, text: str, told: str) -> None:
    _paste(site, text)

    assert _verdict(site).startswith("Invalid: 1 fault")
    assert _faults(site)[0].partition("\n")[2].startswith(told)
    assert _console(site) == []


def test_a_page_that_fails_says_so_and_calls_nothing_valid(browser: Chrome, folder: Path) -> None:
    broken = folder / "broken.html"
    broken.write_text((folder / "contracts.html").read_text("utf-8").replace('"profiles":', '"profile":'), "utf-8")
    browser.get(broken.as_uri())

    _paste(browser, GOOD)

    assert _verdict(browser).startswith("This page has failed: Uncaught TypeError")
    assert len(_console(browser)) >= 1


@pytest.mark.parametrize(("kind", "begins"), [("valid", "Valid: 1 message"), ("invalid", "Invalid: 1 fault")])
def test_an_example_is_loaded_at_the_top_and_its_verdict_is_in_view(site: Chrome, kind: str, begins: str) -> None:
    _resize(site, 1280, 900)

    site.find_element(By.CSS_SELECTOR, f"[data-load={kind}]").click()

    assert _verdict(site).startswith(begins)
    assert _in_view(site, "#verdict", "#message", "#faults")
    assert site.switch_to.active_element.get_attribute("id") == "verdict"


def test_the_verdict_is_in_view_before_and_after_a_message_is_checked(site: Chrome) -> None:
    _resize(site, 1280, 900)
    is_seen_before = _in_view(site, "#verdict")

    site.find_element(By.ID, "message").send_keys("{}")
    site.find_element(By.CSS_SELECTOR, "#form .main").click()

    assert is_seen_before
    assert _in_view(site, "#verdict", "#faults li")
    assert site.switch_to.active_element.get_attribute("id") == "verdict"


def test_the_page_names_the_commit_that_it_was_made_from(site: Chrome) -> None:
    footer = site.find_element(By.TAG_NAME, "footer").text

    assert f"It shows the contracts of commit {COMMIT[:12]};" in footer


def test_buttons_do_not_touch_each_other_on_a_phone(site: Chrome) -> None:
    _resize(site, 360, 640)

    boxes = [each.rect for each in site.find_elements(By.CSS_SELECTOR, ".buttons button")]

    rows = sorted({each["y"] for each in boxes})
    assert len(rows) > 1
    assert min(below - above for above, below in pairwise(rows)) >= boxes[0]["height"] + 8


def test_on_a_phone_the_page_goes_to_the_verdict(site: Chrome) -> None:
    _resize(site, 360, 640)
    site.execute_script("scrollTo(0, document.getElementById('form').getBoundingClientRect().top)")

    site.find_element(By.CSS_SELECTOR, "[data-load=invalid]").click()

    assert _in_view(site, "#verdict")


def test_an_example_of_the_chosen_contract_is_loaded(site: Chrome) -> None:
    site.find_element(By.CSS_SELECTOR, "option[value='eventbridge-notification@1']").click()

    site.find_element(By.CSS_SELECTOR, "[data-load=valid]").click()

    assert _verdict(site) == "Valid: 1 message, checked by eventbridge-notification@1, producer."


def test_a_contract_offers_only_the_profiles_that_it_has(site: Chrome) -> None:
    site.find_element(By.CSS_SELECTOR, "option[value='sqs-batch@1']").click()

    producer, consumer = site.find_elements(By.NAME, "profile")
    assert [producer.is_enabled(), consumer.is_enabled(), consumer.is_selected()] == [False, True, True]


def test_every_example_is_judged_on_the_page_as_it_is_filed(site: Chrome) -> None:
    verdicts = site.execute_script(
        "return [...document.querySelectorAll('button[data-contract]')].map((button) => { button.click(); "
        "return [button.dataset.profile !== undefined, document.getElementById('verdict').dataset.outcome]; })"
    )

    files = [
        one for each in published("catalog.json")["contracts"] for kind in each["examples"].values() for one in kind
    ]
    assert verdicts == [["expect" in one, "invalid" if "expect" in one else "valid"] for one in files]


def test_every_field_and_every_change_is_on_the_page(site: Chrome) -> None:
    _open_all(site)

    shown = site.find_element(By.ID, "content").text
    fields = {name for one in published("catalog.json")["contracts"] for name in _fields(one)}
    changes = (CONTRACTS / "CHANGELOG.md").read_text("utf-8").replace("`", "").split("\n## ")[1:]
    assert [name for name in fields if f"{name} " not in shown] == []
    lines = [line.removeprefix("- ") for part in changes for line in part.splitlines()[1:] if line.startswith("- ")]
    assert len(lines) >= 4
    assert [line for line in lines if line not in shown] == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(site: Chrome, width: int) -> None:
    _resize(site, width, 740)

    _paste(site, f"{BAD} {'x' * 3_000}")
    _paste(site, BAD)
    _open_all(site)

    wide = site.execute_script(
        "return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.matches('.skip') && "
        "(e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth + 1 && e.clientWidth)).map("
        "(e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert site.execute_script("return [innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [
        width,
        True,
    ]


def test_all_is_reached_by_tab_in_the_order_in_which_it_is_read_and_the_focus_is_seen(site: Chrome) -> None:
    _paste(site, BAD)
    site.execute_script("document.querySelector('.skip').focus({ focusVisible: true })")

    reached: list[int] = []
    index, is_seen = site.execute_script(FOCUS)
    while index != -1 and index not in reached:
        assert is_seen, index
        reached.append(index)
        site.switch_to.active_element.send_keys(Keys.TAB)
        index, is_seen = site.execute_script(FOCUS)

    assert reached == site.execute_script(REACHABLE)
    assert len(reached) > 25


def test_a_message_is_checked_by_keyboard_alone(site: Chrome) -> None:
    site.find_element(By.ID, "message").send_keys("{}", Keys.TAB, Keys.ENTER)
    is_at_the_verdict = site.switch_to.active_element.get_attribute("id") == "verdict"
    site.switch_to.active_element.send_keys(Keys.TAB)

    assert _verdict(site) == "Invalid: 1 fault."
    assert is_at_the_verdict
    assert site.switch_to.active_element.text == "line 1"


def test_what_is_not_seen_is_said(site: Chrome) -> None:
    elements = site.find_elements(By.CSS_SELECTOR, "header, nav, main, footer, #check, #form *, #verdict")

    said = {(element.aria_role, element.accessible_name) for element in elements}

    assert said >= {
        ("banner", ""),
        ("navigation", "Contents"),
        ("main", ""),
        ("contentinfo", ""),
        ("region", "Check a message"),
        ("combobox", "Contract"),
        ("group", "Profile"),
        ("radio", "producer"),
        ("radio", "consumer"),
        ("textbox", "Message"),
        ("button", "Check"),
        ("button", "Load a valid example"),
        ("button", "Load an invalid example"),
        ("status", ""),
    }
    assert site.find_element(By.ID, "verdict").get_attribute("aria-live") == "polite"
    assert site.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(site: Chrome, scheme: str) -> None:
    site.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    pairs = []
    for text in (GOOD, BAD):
        _paste(site, text)
        _open_all(site)
        pairs += site.execute_script(TEXTS)

    weak = [pair for pair in pairs if _contrast(pair[0], pair[1]) < 4.5]
    assert weak == []
    assert len({tuple(pair[:2]) for pair in pairs}) >= 7
    assert (_luminance(pairs[0][1]) < 0.1) == (scheme == "dark")


def test_no_request_leaves_the_page(browser: Chrome, folder: Path) -> None:
    server = _Server(folder)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        browser.get(f"http://127.0.0.1:{server.server_port}/contracts.html")
        _paste(browser, BAD)
        sources = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
        tried = browser.execute_async_script(
            "const done = arguments[0], image = new Image(), frame = document.createElement('iframe'), "
            "style = document.createElement('link'), script = document.createElement('script');"
            "image.src = '/image'; frame.src = '/frame'; style.rel = 'stylesheet'; style.href = '/style'; "
            "script.src = '/script'; document.body.append(image, frame, style, script); "
            "navigator.sendBeacon('/beacon', 'x'); "
            "fetch('/fetch').then(() => done('sent'), () => done('refused'));"
        )
    finally:
        server.shutdown()
        server.server_close()

    assert tried == "refused"
    assert sources == []
    assert server.asked == ["GET /contracts.html"]


def _paste(browser: Chrome, text: str) -> None:
    """What a paste does: the selection is replaced, an input event is fired; then wait for the verdict."""
    browser.execute_script(
        "const message = document.getElementById('message'); document.getElementById('verdict').textContent = ''; "
        "message.focus(); message.select(); "
        "if (!document.execCommand('insertText', false, arguments[0])) throw new Error('nothing was inserted');",
        text,
    )
    WebDriverWait(browser, 60).until(lambda _: _verdict(browser))


def _resize(browser: Chrome, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def _in_view(browser: Chrome, *selectors: str) -> bool:
    """Whether the whole of each element is inside the window."""
    seen: bool = browser.execute_script(
        "return [...arguments].every((one) => { const box = document.querySelector(one).getBoundingClientRect(); "
        "return box.top >= 0 && box.bottom <= innerHeight; })",
        *selectors,
    )
    return seen


def _verdict(browser: Chrome) -> str:
    return browser.find_element(By.ID, "verdict").text


def _console(browser: Chrome) -> list[str]:
    """What went wrong in the page."""
    log: list[dict[str, str]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in log]


def _faults(browser: Chrome) -> list[str]:
    return [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#faults li")]


def _open_all(browser: Chrome) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach((one) => (one.open = true))")


def _fields(one: dict[str, Any]) -> Iterator[str]:
    for file in one["profiles"].values():
        yield from _names(published(file["path"]))


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from node.get("properties", {})
        for inner in node.values():
            yield from _names(inner)


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """WCAG 2.2, "relative luminance", of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
