"""A headless Chromium that talks to nobody, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_BROWSER, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip

chromium_is_here = pytest.mark.skipif(
    _BROWSER is None or _DRIVER is None, reason="the page is read by Debian's chromium and chromium-driver: not here"
)


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile in the folder `profile`."""
    assert _BROWSER is not None
    assert _DRIVER is not None
    options = webdriver.ChromeOptions()
    options.binary_location = _BROWSER
    for argument in (*_QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(_DRIVER))
    try:
        yield browser
    finally:
        browser.quit()
