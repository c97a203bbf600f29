"""The page in real headless Chromium: a recording comes in, texts and files come out."""

import json
import shutil

import pytest

from tests.server.conftest import LONG, SHORT, wav

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)", allow_module_level=True)

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium (extra dev)")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    spoken = folder / "spoken.wav"
    spoken.write_bytes(wav(SHORT))
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=360,740",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}",
        "--autoplay-policy=no-user-gesture-required",
    ):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.downloads, driver.recording = folder, spoken
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server):
    browser.get(server.url)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#model option"))
    browser.get_log("browser")
    yield browser
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def wait(browser, true, seconds=40):
    return WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda _: true())


def find(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def words(page, panel=1):
    return page.find_elements(By.CSS_SELECTOR, f".panel:nth-of-type({panel}) .word")


def transcribe(page):
    find(page, "#file").send_keys(str(page.recording))
    wait(page, lambda: find(page, "#status").text.startswith("Done"))


def test_two_searches_side_by_side(page, server):
    Select(find(page, "#first")).select_by_value("ctc_greedy")
    Select(find(page, "#second")).select_by_value("ctc_beam")
    transcribe(page)
    texts = [find(page, f".panel:nth-of-type({n}) .text").text for n in (1, 2)]
    expected = [server.recognizer.transcribe(SHORT, decoding=name).text for name in ("ctc_greedy", "ctc_beam")]
    assert [" ".join(text.split()) for text in texts] == expected
    assert "agree in" in find(page, "#agreement").text
    assert " in " in find(page, ".panel .facts").text
    differing = {word.text for word in page.find_elements(By.CSS_SELECTOR, ".word.differs")}
    assert bool(differing) == (expected[0].split() != expected[1].split())
    find(page, ".panel:nth-of-type(2) summary").click()
    assert find(page, ".panel:nth-of-type(2) .said").text == expected[1]
    word = words(page)[-1]
    word.click()
    start = float(word.get_attribute("data-start"))
    wait(page, lambda: page.execute_script("return audio.currentTime") >= start)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")  # 360 px are enough


def test_files_to_download(page):
    transcribe(page)
    for ending in ("txt", "srt", "vtt", "json"):
        find(page, f"button[aria-label='Download {ending}']").click()
    files = {ending: page.downloads / f"spoken.{ending}" for ending in ("txt", "srt", "vtt", "json")}
    wait(page, lambda: all(file.exists() for file in files.values()))
    answer = json.loads(files["json"].read_text())
    assert files["txt"].read_text() == answer["text"] + "\n"
    assert files["srt"].read_text().startswith("1\n00:00:0")
    assert files["vtt"].read_text().startswith("WEBVTT\n\n00:00:0")
    assert all(answer["segments"][0]["text"] in files[ending].read_text() for ending in ("srt", "vtt"))


def test_keyboard_alone(page, tmp_path):
    (tmp_path / "long.wav").write_bytes(wav(LONG))
    find(page, "#file").send_keys(str(tmp_path / "long.wav"))
    wait(page, lambda: find(page, "#status").text.startswith("Done"))
    page.execute_script("document.querySelector('.word').focus()")
    first, second = words(page)[:2]
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element == second
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait(page, lambda: page.execute_script("return audio.currentTime") >= float(second.get_attribute("data-start")))
    page.switch_to.active_element.send_keys(Keys.HOME)
    assert page.switch_to.active_element == first


def test_markup_is_text(page):
    shown = page.execute_async_script("""
        const done = arguments[0];
        import("/panel.js").then(({ Panel }) => {
          const panel = new Panel({ name: "<b>x</b>", kind: "<i>" }, "x");
          panel.show({ id: 0, text: "<img src=x onerror=alert(1)> -->", start: 0, end: 1, flags: ["<u>"] });
          panel.finish({ text: "<u>", duration: 1, segments: [{ start: 0, end: 1, text: "a --> <c>" }], flags: [],
            nbest: [{ text: "<b>n</b>", score: 1, scores: {} }] }, 1);
          import("/files.js").then(({ FORMATS }) => done([panel.element.querySelectorAll("b,i,u,img").length,
            panel.text.textContent, FORMATS.vtt[1](panel.answer), FORMATS.srt[1](panel.answer)]));
        });""")
    assert shown == [
        0,
        "<img src=x onerror=alert(1)> --> ⚑ <u>",
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na --&gt; &lt;c&gt;\n",
        "1\n00:00:00,000 --> 00:00:01,000\na -> <c>\n",
    ]


def test_words_in_common(page):
    ask = 'const [a, b, done] = arguments; import("/compare.js").then(({ common }) => done(common([...a], [...b])))'
    for a, b, length in [
        ("abcabba", "cbabac", 4),
        ("", "", 0),
        ("a", "", 0),
        ("", "ab", 0),
        ("abc", "abc", 3),
        ("xay", "a", 1),
    ]:
        pairs = page.execute_async_script(ask, a, b)
        assert len(pairs) == length
        assert all(a[i] == b[j] for i, j in pairs)
        assert pairs == sorted(pairs)


def test_microphone(page):
    find(page, "#record").click()
    wait(page, lambda: find(page, "#panels .text").text)
    find(page, "#record").click()
    wait(page, lambda: find(page, "#status").text.startswith("Recorded"))
    assert words(page)
    assert not page.find_elements(By.CSS_SELECTOR, "p.partial")
    assert page.execute_script("return audio.duration") > 0


def test_an_error_is_one_line(page, tmp_path):
    (tmp_path / "song.wav").write_text("no audio")
    find(page, "#file").send_keys(str(tmp_path / "song.wav"))
    assert "\n" not in wait(page, lambda: find(page, "#error").text)
    assert [line["level"] for line in page.get_log("browser")] == ["SEVERE"]  # the answer 422
