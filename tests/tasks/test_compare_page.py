"""The page of a comparison in headless Chromium: what it shows, its filters, and its keys."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import urllib.request

import pytest
from test_compare import lm_eval_run, table

from ske_tasks.compare.page import write
from ske_tasks.compare.runs import read
from ske_tasks.compare.table import compare

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


class Browser:
    """Chromium through ChromeDriver's HTTP interface (W3C WebDriver), without a client library."""

    def __init__(self, port, profile):
        self.base = f"http://127.0.0.1:{port}"
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self.base += f"/session/{self.send('/session', capabilities=capabilities)['sessionId']}"

    def send(self, path, method="POST", **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(
            self.base + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)["value"]

    def run(self, script, *arguments):
        return self.send("/execute/sync", script=script, args=list(arguments))

    def press(self, *keys):
        events = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.send("/actions", actions=[{"type": "key", "id": "keys", "actions": events}])


@pytest.fixture
def browser(tmp_path):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs Chromium and ChromeDriver (Debian: chromium, chromium-driver)")
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        started = next(line for line in driver.stdout if "successfully on port" in line)
        port = started.rsplit(" ", 1)[1].strip(" .\n")
        found = Browser(port, tmp_path / "profile")
        yield found
        found.send("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(timeout=30)


@pytest.fixture
def page(tmp_path):
    draw = random.Random(1)
    lm_eval_run(tmp_path / "a", table(draw, 60))
    after = table(draw, 60, method="explicit", chance=0.7)
    hostile = "</script><img src=x onerror=\"document.title='broken'\"> \u2028 <b>bold</b>"
    after["ske_nq"][3]["doc"]["ske"]["knowledge"] = hostile
    lm_eval_run(tmp_path / "b", after, "explicit")
    found = compare([read(tmp_path / name, texts=True)[0] for name in "ab"])
    write(tmp_path / "page.html", found)
    return found, tmp_path / "page.html", hostile


def test_the_page_shows_filters_and_steps_through_every_question(browser, page):
    found, path, hostile = page
    browser.send("/url", url=path.as_uri())
    count = "return document.getElementById('count').textContent"
    shown = "return document.querySelectorAll('article').length"
    assert browser.run("return document.title") == "a (direct) | b (explicit): compared"
    assert browser.run(count) == "120 questions"
    assert browser.run(shown) == 50
    assert str(found.pairs.average(1)) in browser.run(
        "return document.getElementById('accuracies').innerText"
    )

    choose = """const [id, value] = arguments, field = document.getElementById(id);
        field.value = value; field.dispatchEvent(new Event('input'))"""
    browser.run(choose, "pattern", "✗ ✓")
    assert browser.run(count) == f"{found.pairs.flips(1, 0)[0]} questions"
    browser.run(choose, "benchmark", "ske_nq")
    assert browser.run(count) == f"{found.pairs.flips(1, 0, 'ske_nq')[0]} questions"
    browser.run(choose, "pattern", "")
    assert browser.run(count) == "60 questions"

    browser.press("j", "j")
    second = found.keys[61][1]
    assert second in browser.run("return document.activeElement.innerText")
    browser.press("k")
    assert found.keys[60][1] in browser.run("return document.activeElement.innerText")
    browser.press("/")
    assert browser.run("return document.activeElement.id") == "text"
    browser.press(*"onerror")
    assert browser.run(count) == "1 questions"
    assert hostile.split("\u2028")[0].strip() in browser.run(
        "return document.querySelector('.k').textContent"
    )
    browser.press("\ue00c")  # Escape
    assert browser.run("return document.activeElement.tagName") == "ARTICLE"
    assert browser.run("return document.title") == "a (direct) | b (explicit): compared"


def test_the_page_is_one_file_that_asks_for_nothing(page):
    text = page[1].read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "http://" not in text.replace("http-equiv", "")
    assert "https://" not in text
