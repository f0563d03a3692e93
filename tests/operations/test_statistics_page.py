"""The charts of `stats --html`, on paper and in a browser: nothing is cut, and ticks are round."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from aggregator.commands.console import bytes_in_words
from aggregator.operations.statistics import Figures, Measured
from aggregator.operations.statistics_page import _ticks, page
from tests.support.browser import chromium, chromium_is_here

pytestmark = pytest.mark.once

BEGAN = datetime(2026, 11, 23, 7, 59, tzinfo=UTC)

CUT = """
const cut = [];
for (const drawing of document.querySelectorAll("section > svg")) {
  const { width, height } = drawing.viewBox.baseVal, texts = [...drawing.querySelectorAll("text")];
  const boxes = texts.map((text) => text.getBBox());
  boxes.forEach((box, at) => {
    const isOut = box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height;
    if (isOut) cut.push(`${texts[at].textContent} is cut`);
    for (const [other, its] of boxes.entries()) {
      const apart = box.x + box.width <= its.x || its.x + its.width <= box.x ||
        box.y + box.height <= its.y || its.y + its.height <= box.y;
      if (other > at && !apart) cut.push(`${texts[at].textContent} is over ${texts[other].textContent}`);
    }
  });
}
if (document.documentElement.scrollWidth > innerWidth) cut.push("the page is wider than the screen");
return cut;
"""


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (37, [0, 10, 20, 30, 40]),
        (105, [0, 50, 100, 150]),
        (0.9, [0, 0.5, 1]),
        (232.5e6, [0, 100e6, 200e6, 300e6]),
    ],
)
def test_ticks_are_round_and_reach_the_highest_bar(most: float, ticks: list[float]) -> None:
    assert _ticks(most) == ticks


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.once
@chromium_is_here
@pytest.mark.parametrize(
    ("hours", "largest"), [(1, 7), (30, 232_500_000), (24 * 50, 98_765_432), (24 * 900, 4_999_999_999)]
)
def test_no_label_is_cut_and_none_is_over_another(browser: Chrome, tmp_path: Path, hours: int, largest: int) -> None:
    figures = Figures(limit=5_000_000_000)
    figures.bundles = [
        Measured(BEGAN + timedelta(hours=at), 700, largest * (at + 1) // hours, 3 * largest, 3 * largest, 0)
        for at in range(0, hours, 1 + hours // 500)
    ]
    report = tmp_path / "report.html"
    text = page(figures, target="s3://bundles/2026/", made="now", bytes_in_words=bytes_in_words, most=10)
    report.write_text(text, encoding="utf-8")

    cut = {}
    for width in (375, 768, 1280, 1920):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(report.as_uri())
        cut[width] = browser.execute_script(CUT)

    assert list(cut.values()) == [[], [], [], []]
