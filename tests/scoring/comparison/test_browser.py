"""A comparison in real headless Chromium: it fits a phone, is dark where that is asked for, and loads nothing."""

import random
import shutil

import pytest
import soundfile as sf

from kikitori.io.audio import SAMPLE_RATE
from kikitori.scoring.charts import heat_map, line_chart
from kikitori.scoring.comparison.compare import compare
from kikitori.scoring.comparison.tables import Background
from kikitori.scoring.comparison.write import write_comparison
from kikitori.scoring.page import Extras, Figure, render_comparison
from kikitori.types import Utterance
from kikitori.workflows.study.illustrations import player
from tests.scoring.comparison.systems import prediction
from tests.tiny import tiny_waveform

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


def test_sounds_pictures_and_charts_are_shown(browser, tmp_path):
    sf.write(tmp_path / "a.wav", tiny_waveform(1.0), SAMPLE_RATE)
    sound = player(Utterance(tmp_path / "a.wav", 1.0))
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    rates = {(f"{n}", "1"): 0.1 * n for n in range(20)}
    figures = (
        Figure("Learning", "", lines=line_chart("WER", "epoch", {"a long name of a cell": [(1, 0.5), (3, 0.1)]})),
        Figure("Scales", "", heat=heat_map("WER (%)", ("scale", [*map(str, range(20))]), ("beam", ["1"]), rates)),
        Figure("CTC", "", image=f"data:image/png;base64,{dot}"),
    )
    extras = Extras(figures, (sound,), "axes:\n" + "- a rather long line\n" * 3)
    page = render_comparison("study", [], "verdict", None, [], [("one", [])], extras)
    (tmp_path / "study.html").write_text(page)
    for width, height in ((360, 740), (1280, 800)):
        browser.set_window_size(width, height)
        browser.get((tmp_path / "study.html").as_uri())
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"the page is {wide} pixels wider than a window of {width}"
    assert browser.execute_script("return document.querySelector('img').naturalWidth") == 1
    seconds = browser.execute_async_script(
        "const done = arguments[0], audio = document.querySelector('audio');"
        "audio.onloadedmetadata = () => done(audio.duration); audio.onerror = () => done(-1);"
        "audio.preload = 'metadata'; audio.load()"
    )
    assert seconds == pytest.approx(1.0, abs=0.05)
    assert browser.get_log("browser") == []
