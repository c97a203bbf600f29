"""The server's page by the rules of axe-core, in Chromium: empty and with results, in light, dark and 360 px.

    make axe            # takes axe-core from npm's registry once; needs Debian's chromium and chromium-driver

The page shows what the bundled model makes of a bundled recording by two searches side by side, with their facts open.
Prints a line for each state and one for each violation; exit status 1 if there are any.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from serving import serving

PORT = 8917
RECORDING = Path(__file__).parents[1] / "src" / "kikitori" / "samples" / "2136-5147-0021.opus"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900")
RUN = """
    const done = arguments[0];
    axe.run().then(({ violations, passes }) => done([passes.length,
      violations.map(({ id, impact, nodes }) => [id, impact, nodes.length, nodes[0].html.slice(0, 120)])]));
"""


def violations(browser: Any, axe: str, state: str) -> int:
    browser.execute_script(axe)
    passed, found = browser.execute_async_script(RUN)
    print(f"{state}: {passed} rules passed, {len(found)} violated")
    for rule, impact, count, example in found:
        print(f"  {rule} ({impact}), {count} elements, such as {example}")
    return len(found)


def check(url: str, axe: str) -> int:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("no chromium (Debian: chromium, chromium-driver)")
    for flag in FLAGS:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(url)
        wait = WebDriverWait(browser, 120)
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#model option"))
        count = violations(browser, axe, "empty, light")
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
        Select(browser.find_element(By.ID, "second")).select_by_value("greedy")
        browser.find_element(By.ID, "file").send_keys(str(RECORDING))
        wait.until(lambda page: page.find_element(By.ID, "status").text.startswith("Done"))
        for summary in browser.find_elements(By.CSS_SELECTOR, ".panel summary"):
            summary.click()
        count += violations(browser, axe, "results, light")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        count += violations(browser, axe, "results, dark")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        count += violations(browser, axe, "results, dark, 360 px")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        count += violations(browser, axe, "results, light, 360 px")
        browser.get(url)
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#model option"))
        return count + violations(browser, axe, "empty, light, 360 px")
    finally:
        browser.quit()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/server_axe.py axe.min.js")
    axe = Path(sys.argv[1]).read_text(encoding="utf-8")
    with serving(PORT) as url:
        count = check(url, axe)
    sys.exit(min(count, 1))


if __name__ == "__main__":
    main()
