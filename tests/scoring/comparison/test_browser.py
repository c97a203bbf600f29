"""A comparison in real headless Chromium: it fits a phone, is dark where that is asked for, and loads nothing."""

import random
import shutil

import pytest

from kikitori.scoring.comparison.compare import compare
from kikitori.scoring.comparison.tables import Background
from kikitori.scoring.comparison.write import write_comparison
from tests.scoring.comparison.systems import prediction

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)", allow_module_level=True)

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium (extra dev)")
pytestmark = pytest.mark.slow


@pytest.fixture
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=360,740"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_the_page_of_a_thousand_utterances(browser, tmp_path):
    rng = random.Random(1)  # noqa: S311
    systems = {}
    for name, rate in (("a rather long name of a system", 0.2), ("better", 0.1), ("best", 0.05)):
        rows = []
        for number in range(1000):
            said = [rng.choice(("the", "crow", "flew", "nonetheless")) for _ in range(12)]
            texts = " ".join(word if rng.random() > rate else "cow" for word in said)
            rows.append(prediction(f"u{number}", " ".join(said), texts, time=rate))
        systems[name] = {"set": rows}
        rng = random.Random(1)  # noqa: S311  (the same references)
    write_comparison(tmp_path, [compare(systems), compare(systems, "basic")], Background(), {})
    browser.get((tmp_path / "comparison.html").as_uri())
    assert browser.find_element("css selector", ".verdict").text.startswith("best makes the fewest word errors")
    assert len(browser.find_elements("css selector", "svg circle")) == 3
    assert len(browser.find_elements("css selector", "article")) == 15
    for width, height in ((360, 740), (1280, 800)):
        browser.set_window_size(width, height)
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"the page is {wide} pixels wider than a window of {width}"
    colours = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 22, 22)"]
    assert browser.get_log("browser") == []
