"""The page in a real browser, with a real box and a real HTTP camera."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from helpers import serving
from judged_box import Box
from mjpeg_server import PASSWORD, MjpegServer, jpeg
from multidict import CIMultiDict
from ppe_edge.compliance.store import Count, Key
from ppe_edge.config import CameraConfig, load_settings
from ppe_edge.control import Control
from ppe_edge.delivery.alert_history import AlertQuery
from ppe_edge.delivery.messages import Sighting, clip_of, close_unseen, utc
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.pictures.clip import encode_clip
from ppe_edge.runtime import Runtime
from ppe_edge.verdicts.desk import Decision
from ppe_edge.web.config import WebConfig
from ppe_edge.web.server import WebServer
from ppe_edge.web.status import RuntimeStatus
from pydantic import SecretStr
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from conftest import GREEN, RED, grainy  # isort: skip

TOKEN, VIEWER = "a-token-of-the-gate-0123456789", "a-token-of-viewers-0123456789"
SOON = 60.0  # seconds; generous, for busy machines
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs a browser: Debian's packages chromium and chromium-driver"
)
QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
FAINT_TEXTS = """
const parse = (text) => { const [r, g, b, a = 1] = text.match(/[0-9.]+/g).map(Number); return { rgb: [r, g, b], a }; };
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (let e = node; e; e = e.parentElement) {
    const { rgb, a } = parse(getComputedStyle(e).backgroundColor);
    if (a > 0) return rgb;
  }
};
const faint = [];
for (const node of document.querySelectorAll("body *")) {
  const hasText = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
  if (!hasText || !node.checkVisibility() || node.disabled) continue;
  const [a, b] = [light(parse(getComputedStyle(node).color).rgb), light(behind(node))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${node.tagName} ${node.textContent.slice(0, 30)}`);
}
return faint;
"""
MEAN_COLOUR = """
const image = document.querySelector("#cameras img");
if (!image || !image.complete || !image.naturalWidth) return null;
const canvas = document.createElement("canvas");
canvas.width = canvas.height = 1;
canvas.getContext("2d").drawImage(image, 0, 0, 1, 1);
return Array.from(canvas.getContext("2d").getImageData(0, 0, 1, 1).data.slice(0, 3));
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    # root has no sandbox; /dev/shm is small in containers
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *QUIET):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(session: webdriver.Chrome) -> webdriver.Chrome:
    """The browser of all tests, as after its start."""
    session.get("about:blank")
    session.execute_cdp_cmd("Network.clearBrowserCookies", {})
    session.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    session.set_window_size(1280, 900)
    for log in ("browser", "performance"):
        session.get_log(log)  # discards what was requested and reported before
    return session


@dataclass
class Site:
    """A box with one camera, and the address of its page."""

    runtime: Runtime
    camera: MjpegServer
    address: str
    colour: list[tuple[int, int, int]] = field(default_factory=lambda: [GREEN])  # what the camera shows, RGB


@pytest.fixture
def site(tmp_path: Path, tiny_model: Path) -> Iterator[Site]:
    """The camera shows a helmet at first."""
    colour = [GREEN]
    rng = np.random.default_rng(0)

    with MjpegServer(lambda _: jpeg(grainy(colour[0], rng)[..., ::-1])) as camera:
        config = tmp_path / "edge.yaml"
        document = {
            "model": {"path": str(tiny_model), "threads": 1},
            "state_dir": str(tmp_path / "state"),
            "cameras": {"gate": {"source": camera.url, "read_timeout_s": 1.0, "frozen_after_s": 3.0}},
            "sinks": {"jsonl": {"path": str(tmp_path / "alerts.jsonl")}},
            "web": {"port": 0, "token": TOKEN},
            "compliance": {"enabled": False},  # on a slow machine, the box would add its own figures to those of a test
        }
        config.write_text(json.dumps(document))
        settings = load_settings(config)
        runtime = Runtime(settings)
        server = WebServer(settings.web, RuntimeStatus(runtime), runtime.desk, Control(runtime, config, {}))
        runtime.start()
        server.start()
        yield Site(runtime, camera, f"http://127.0.0.1:{server.port}", colour)
        server.stop()
        runtime.stop()


def until(browser: webdriver.Chrome, condition: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, SOON, 0.1).until(lambda _: condition())


def sign_in(browser: webdriver.Chrome, token: str) -> None:
    """Enters the token into the form and submits it."""
    browser.find_element(By.ID, "token").send_keys(token)
    follow(browser, By.CSS_SELECTOR, "form button")


def follow(browser: webdriver.Chrome, by: str, value: str) -> None:
    """Clicks on what leads to another page, and waits until the browser has left this one."""
    element = until(browser, lambda: browser.find_element(by, value))
    element.click()
    until(browser, lambda: gone(element))


def faint_texts(browser: webdriver.Chrome) -> list[str]:
    """Texts whose contrast is below that of WCAG 2.1 AA, 4.5 to 1, in a light or a dark browser."""
    found = []
    for scheme in ("dark", "light"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        found += [f"{scheme}: {text}" for text in browser.execute_script(FAINT_TEXTS)]
    return found


def gone(element: Any) -> bool:
    """Whether the browser has left the page of an element."""
    try:
        element.is_enabled()
    except WebDriverException:  # usually StaleElementReferenceException, sometimes a vague one while the page changes
        return True
    return False


def text_of(browser: webdriver.Chrome, selector: str) -> str:
    """Text of the element that a selector finds; read at once, because the page changes all the time."""
    return str(browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def test_page_shows_camera_and_alerts_after_login(browser: webdriver.Chrome, site: Site) -> None:
    browser.get(site.address)
    assert browser.current_url == f"{site.address}/login"
    assert "Wrong token" not in text_of(browser, "form")
    sign_in(browser, "wrong-wrong-wrong-wrong")
    assert "Wrong token" in text_of(browser, "form")
    assert browser.find_elements(By.ID, "cameras") == []

    sign_in(browser, TOKEN)
    assert browser.current_url == f"{site.address}/"
    assert browser.execute_script("return document.cookie") == ""  # scripts cannot read the session
    until(browser, lambda: text_of(browser, "#cameras .state") == "live")
    assert text_of(browser, "#cameras .name") == "gate"
    assert text_of(browser, "nav").split() == ["Live", "Alerts", "Rules"]
    assert text_of(browser, "nav [aria-current]") == "Live"
    assert text_of(browser, "#alerts-title") == "Latest alerts and events"
    assert "tiny.onnx" in text_of(browser, "#summary")

    def colour() -> list[int]:
        return browser.execute_script(MEAN_COLOUR) or [0, 0, 0]

    until(browser, lambda: colour()[1] > colour()[0] + 50)  # green
    assert text_of(browser, "#cameras .violation") == ""
    site.colour[0] = RED
    until(browser, lambda: colour()[0] > colour()[1] + 50)  # the image is refreshed
    until(browser, lambda: text_of(browser, "#cameras .violation") == "1 violation")
    alert = until(browser, lambda: [r for r in rows(browser) if r[1:3] == ["gate", "alert: bare head"]])
    assert len(alert) == 1 and 0.7 < float(alert[0][3]) < 0.9  # red beyond blue: 210 of 255
    assert faint_texts(browser) == []
    [raised] = [past.alert.id for past in site.runtime.desk.history.alerts(AlertQuery())]
    link = browser.find_element(By.LINK_TEXT, "alert: bare head")
    assert link.get_attribute("href") == f"{site.address}/alerts.html#{raised}"
    site.colour[0] = GREEN
    until(browser, lambda: [r for r in rows(browser) if r[1:3] == ["gate", "ended: bare head"]])
    browser.execute_script("when = () => 'yesterday'")  # midnight, and no news
    until(browser, lambda: {r[0] for r in rows(browser)} == {"yesterday"})
    until(browser, lambda: text_of(browser, "#sinks") == "jsonl 0 waiting")
    for width in (1280, 500):
        browser.set_window_size(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), width
    file = site.runtime.settings.sinks.jsonl.path
    file.rename(file.with_suffix(".old"))
    file.mkdir()  # the sink cannot write any more
    site.camera.__exit__()
    until(browser, lambda: text_of(browser, "#cameras .state") in ("lost", "frozen"))
    until(browser, lambda: text_of(browser, "#sinks div") == f"{file}: Is a directory")
    assert TOKEN not in browser.page_source and PASSWORD not in browser.page_source

    # the console of the browser shows the rejected login, and nothing else
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert len(complaints) == 1 and complaints[0].startswith(f"{site.address}/login ") and "401" in complaints[0], complaints
    addresses = requested(browser)
    assert f"{site.address}/cameras/gate/live.jpg" in {a.partition("?")[0] for a in addresses}
    assert [a for a in addresses if not a.startswith(f"{site.address}/") or TOKEN in a or PASSWORD in a] == []


def rows(browser: webdriver.Chrome) -> list[list[str]]:
    """The table of alerts: time, camera, event, score, duration."""
    script = "return [...document.querySelectorAll('#alerts tr')].map(r => [...r.cells].map(c => c.innerText))"
    return list(browser.execute_script(script))


def requested(browser: webdriver.Chrome) -> list[str]:
    """Every address that the browser has requested."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def test_page_shows_placeholder_for_camera_without_frame(browser: webdriver.Chrome, site: Site) -> None:
    settings = site.runtime.settings
    cameras = {**settings.cameras, "yard": CameraConfig(source=SecretStr("rtsp://127.0.0.1:9/x"))}
    changed = settings.model_copy(update={"cameras": cameras})
    site.runtime.between_frames(lambda: site.runtime.deploy(site.runtime.deployment.with_settings(changed)))
    browser.get(site.address)
    sign_in(browser, TOKEN)
    shown = """return Object.fromEntries([...document.querySelectorAll("#cameras figure")].map((f) => [f.dataset.name, [
        f.querySelector(".state").innerText, ...["img", ".no-image"].map((e) => f.querySelector(e).checkVisibility())]]))"""
    want = {"gate": ["live", True, False], "yard": ["lost", False, True]}
    until(browser, lambda: browser.execute_script(shown) == want)
    assert text_of(browser, "figure[data-name=yard] .no-image") == "no image"


def test_page_shows_trouble_at_top_as_text(browser: webdriver.Chrome, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.get(site.address)
    sign_in(browser, TOKEN)
    until(browser, lambda: text_of(browser, "#cameras .name") == "gate")
    assert not browser.find_element(By.ID, "trouble").is_displayed()
    monkeypatch.setattr(Outbox, "trouble", "the disk is <b>full</b>")  # test_main fills a real disk
    until(browser, lambda: text_of(browser, "#trouble") == "the disk is <b>full</b>")
    assert browser.find_element(By.ID, "trouble").is_displayed()


def test_page_that_lost_the_box_shows_no_camera_as_live(browser: webdriver.Chrome, site: Site) -> None:
    browser.get(site.address)
    sign_in(browser, TOKEN)
    until(browser, lambda: text_of(browser, "#cameras .state") == "live")
    browser.execute_script("window.wait = AbortSignal.timeout; AbortSignal.timeout = () => wait.call(AbortSignal, 0)")
    until(browser, lambda: text_of(browser, "#cameras .state") == "unknown")
    assert text_of(browser, "#summary") == "The box does not respond. Everything below is as it was before."
    assert browser.execute_script("return getComputedStyle(document.querySelector('#cameras img')).opacity") == "0.25"
    browser.execute_script("AbortSignal.timeout = wait")
    until(browser, lambda: text_of(browser, "#cameras .state") == "live")
    assert text_of(browser, "#summary").startswith("1 of 1 camera live")
    read_aloud = """const done = arguments[0]; let count = 0;
        new MutationObserver(() => count++).observe(byId("summary"), {childList: true});
        refresh().then(refresh).then(() => setTimeout(() => done(count)))"""
    assert browser.execute_async_script(read_aloud) == 0  # a screen reader would repeat it with every refresh
    html = "new Response('<h1>', {status: 502, headers: {'Content-Type': 'text/html'}})"
    cut = "new Response(new ReadableStream({start: (stream) => stream.error()}))"
    for answer, says in ((html, "Something other than the box answered (status 502)."), (cut, "The box does not respond.")):
        browser.execute_script(f"window.real ??= fetch; fetch = async () => {answer}; refresh()")
        until(browser, lambda says=says: text_of(browser, "#summary") == f"{says} Everything below is as it was before.")
    browser.execute_script("fetch = real")
    until(browser, lambda: text_of(browser, "#cameras .state") == "live")
    assert browser.execute_script("return [usableZone('Nowhere/Land') ?? null, usableZone(null) ?? null]") == [None, None]
    browser.execute_script("showSystem = () => { throw new RangeError('unknown') }")  # the cameras are as live as before
    until(browser, lambda: text_of(browser, "#summary") == "This browser cannot show the state of the box: unknown")
    assert text_of(browser, "#cameras .state") == "live"


def test_page_returns_to_login_when_session_has_expired(browser: webdriver.Chrome, site: Site) -> None:
    browser.get(site.address)
    sign_in(browser, TOKEN)
    until(browser, lambda: text_of(browser, "#cameras .name") == "gate")
    browser.delete_all_cookies()  # as after a restart of the box, or after twelve hours
    until(browser, lambda: browser.current_url == f"{site.address}/login")
    assert browser.find_element(By.ID, "token").is_displayed()


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[tuple[Box, str]]:
    """A box with three alerts, the oldest first, and the address of its page."""
    box = Box(tmp_path, "full")
    for camera in ("yard", "gate"):
        box.alerts.append(box.raise_alert(camera=camera, time=utc(time.time()), zone="<b>lane</b>"))
    server = WebServer(WebConfig(port=0, token=SecretStr(TOKEN), viewer_token=SecretStr(VIEWER)), Stub(), box.desk, Stub())
    server.start()
    yield box, f"http://127.0.0.1:{server.port}"
    server.stop()
    box.close()


class Stub:
    """The status of a box of which only alerts are looked at."""

    def compliance(self, unit: str, days: int) -> tuple[datetime, list[Any]]:
        return datetime(2027, 1, 15, tzinfo=UTC), []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: {}


def open_alerts(browser: webdriver.Chrome, address: str, token: str) -> None:
    browser.get(address)
    sign_in(browser, token)
    browser.get(f"{address}/alerts.html")
    until(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "#alerts li")) == 3)


def press(browser: webdriver.Chrome, *keys: str) -> None:
    """Presses keys, wherever the focus is."""
    ActionChains(browser).send_keys(*keys).perform()


def test_operator_judges_alerts_by_keyboard(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    box, address = judged
    open_alerts(browser, address, TOKEN)
    press(browser, Keys.ARROW_DOWN)
    until(browser, lambda: text_of(browser, "#what") == "bare head, gate / <b>lane</b>")
    browser.find_element(By.ID, "letters").click()
    press(browser, Keys.TAB, "c")  # a second one would take the first one back
    browser.find_element(By.ID, "letters").click()
    press(browser, Keys.TAB, "c")
    until(browser, lambda: text_of(browser, "#decided") == "confirmed")
    press(browser, Keys.ARROW_DOWN)
    until(browser, lambda: text_of(browser, "#what") == "bare head, yard / <b>lane</b>")
    press(browser, "f")
    until(browser, lambda: browser.find_element(By.ID, "cause").is_displayed())
    assert text_of(browser, "#cause").split() == ["It", "was", "helmet", "something", "else"]
    press(browser, "1")
    until(browser, lambda: text_of(browser, "#decided") == "false alarm: helmet")
    comment = "<img src=x onerror=\"document.title='attacked'\">a c f"  # letters that are keys elsewhere
    browser.find_element(By.ID, "comment").send_keys(comment)
    browser.find_element(By.ID, "save").click()
    until(browser, lambda: text_of(browser, "#decided .comment") == comment)
    until(browser, lambda: text_of(browser, "#precision").startswith("Precision 50 % (95 % interval 9 % to 91 %): 1 confirmed"))
    press(browser, Keys.ESCAPE, Keys.ESCAPE)
    until(browser, lambda: not browser.find_element(By.ID, "detail").is_displayed())
    badges = "return [...document.querySelectorAll('#alerts .badge')].map(b => b.innerText)"
    assert browser.execute_script(badges) == ["confirmed", "false alarm: helmet", "to judge"]
    Select(browser.find_element(By.NAME, "verdict")).select_by_value("false_alarm")
    until(browser, lambda: browser.execute_script(badges) == ["false alarm: helmet"])
    thumbnail = "return document.querySelector('#alerts img').naturalWidth"
    until(browser, lambda: browser.execute_script(thumbnail) == 30)

    past = box.desk.history.alert(box.alerts[1].id)
    assert past is not None and past.verdict is not None and past.verdict.comment == comment
    drafts = (box.folder / "training" / "Annotations").iterdir()
    assert sorted(file.name[:5] for file in drafts) == ["gate_", "yard_"]
    assert browser.title == "Alerts: ppe_edge" and browser.get_log("browser") == []
    assert [a for a in requested(browser) if not a.startswith(f"{address}/") or TOKEN in a] == []


def test_judging_continues_where_the_alert_left_the_list_and_keeps_typed_comments(
    browser: webdriver.Chrome, judged: tuple[Box, str]
) -> None:
    box, address = judged
    open_alerts(browser, address, TOKEN)
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_script(f"location.hash = '{box.alerts[1].id}'")
    until(browser, lambda: text_of(browser, "#what").startswith("bare head, yard"))
    at_site = box.alerts[1].time.astimezone(ZoneInfo("Asia/Tokyo"))
    assert f"{at_site:%M:%S}" in text_of(browser, "#facts dd") and "(Asia/Tokyo)" in text_of(browser, "#facts dd")
    browser.find_element(By.ID, "comment").send_keys("half a thought")
    browser.refresh()  # as by a login that is due
    until(browser, lambda: browser.find_element(By.ID, "comment").get_attribute("value") == "half a thought")
    browser.find_element(By.ID, "back").click()
    Select(browser.find_element(By.NAME, "verdict")).select_by_value("open")
    browser.execute_script(
        "window.real = fetch; fetch = (url) => (url.endsWith(location.hash.slice(1)) ? Promise.reject() : real(url))"
    )
    browser.execute_script(f"location.hash = '{box.alerts[1].id}'")
    until(browser, lambda: text_of(browser, "#what") == "The box does not respond.")  # not that the alert is gone
    browser.execute_script("fetch = real; refresh()")
    until(browser, lambda: text_of(browser, "#what").startswith("bare head, yard"))
    browser.find_element(By.ID, "previous").click()
    until(browser, lambda: text_of(browser, "#what").startswith("bare head, gate"))
    assert browser.find_element(By.ID, "comment").get_attribute("value") == ""
    browser.find_element(By.ID, "next").click()
    until(browser, lambda: text_of(browser, "#what").startswith("bare head, yard"))
    assert browser.find_element(By.ID, "comment").get_attribute("value") == "half a thought"
    browser.find_element(By.ID, "confirm").click()
    until(browser, lambda: browser.execute_script("return document.querySelectorAll('#alerts li').length") == 2)
    browser.find_element(By.ID, "next").click()
    until(browser, lambda: browser.execute_script("return location.hash.slice(1)") == box.alerts[0].id)
    until(browser, lambda: browser.execute_script("return shown?.id") == box.alerts[0].id)
    browser.find_element(By.ID, "back").click()
    until(
        browser, lambda: browser.switch_to.active_element.get_attribute("href") == f"{address}/alerts.html#{box.alerts[0].id}"
    )
    browser.switch_to.active_element.click()
    until(browser, lambda: browser.execute_script("return shown?.id") == box.alerts[0].id)
    browser.find_element(By.ID, "comment").send_keys("for my eyes only")
    browser.find_element(By.CSS_SELECTOR, "form[action=logout] button").click()
    until(browser, lambda: browser.current_url == f"{address}/login")
    assert browser.execute_script("return sessionStorage.length") == 0  # who signs in next sees no draft


def test_quick_decisions_reach_the_alerts_that_were_open(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    box, address = judged
    open_alerts(browser, address, TOKEN)
    wait = "await new Promise((go) => setTimeout(go, 700))"
    browser.execute_script(f"const send = fetch; fetch = async (url, how) => (how.method && ({wait}), send(url, how))")
    for keys in ("c", "f1", ""):
        press(browser, Keys.ARROW_DOWN)
        until(browser, lambda: browser.execute_script("return shown?.id === idInAddress()"))
        press(browser, keys)

    def verdicts() -> list[tuple[str | None, str | None]]:
        found = [past.verdict for past in box.desk.history.alerts(AlertQuery())]
        return [(None, None) if verdict is None else (verdict.verdict, verdict.actual) for verdict in found]

    until(browser, lambda: verdicts()[1] == ("false_alarm", "helmet"))
    assert verdicts() == [("confirmed", None), ("false_alarm", "helmet"), (None, None)]


def test_operator_sees_verdict_of_another_before_replacing_it(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    box, address = judged
    open_alerts(browser, address, TOKEN)
    press(browser, Keys.ARROW_DOWN)
    until(browser, lambda: text_of(browser, "#decided") == "to judge")
    # the page gets no news, as if the other had been quicker by a moment
    browser.execute_script("const send = fetch; fetch = (url, how) => (how.method ? send(url, how) : new Promise(() => {}))")
    box.desk.decide(box.alerts[-1].id, Decision(verdict="confirmed", comment="by the other"))
    press(browser, "f")
    until(browser, lambda: "somebody else has judged this alert in the meantime" in text_of(browser, "#problem"))
    browser.refresh()
    until(browser, lambda: text_of(browser, "#decided .comment") == "by the other")
    lost = "const send = fetch; fetch = (url, how) => send(url, how).then((r) => (how.method ? Promise.reject() : r))"
    browser.execute_script(lost)  # only the answer
    press(browser, "f")
    until(browser, lambda: "does not respond" in text_of(browser, "#problem"))
    until(browser, lambda: text_of(browser, "#decided").startswith("false alarm"))
    until(browser, lambda: text_of(browser, "#problem") == "")
    assert text_of(browser, "#decided .comment") == "by the other"  # its comment stays
    browser.execute_script("const send = fetch; fetch = (url, how) => (how.method ? Promise.reject() : send(url, how))")
    press(browser, "c")  # the decision itself is lost
    until(browser, lambda: "does not respond" in text_of(browser, "#problem"))
    box.outbox.put(close_unseen(box.alerts[-1], time.time()))
    until(browser, lambda: "still open" not in text_of(browser, "#facts"))
    assert "does not respond" in text_of(browser, "#problem") and text_of(browser, "#decided").startswith("false alarm")


def test_clip_appears_when_it_arrives_and_plays_by_keyboard(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    box, address = judged
    open_alerts(browser, address, VIEWER)
    press(browser, Keys.ARROW_DOWN)
    clip, image = browser.find_element(By.ID, "clip"), browser.find_element(By.ID, "image")
    until(browser, image.is_displayed)
    assert not clip.is_displayed()
    video = encode_clip([(n / 8, jpeg(np.full((120, 160, 3), RED, np.uint8)[..., ::-1])) for n in range(9)])
    seen = [(-0.5, "none", 0.8), (0, "none", 0.7), (0.5, "helmet", 0.6)]
    sightings = [Sighting(offset_s=offset, class_name=name, score=score) for offset, name, score in seen]
    box.outbox.put(clip_of(box.alerts[-1], -0.5, 1.0, sightings), video)
    until(browser, clip.is_displayed)
    assert text_of(browser, "#score-legend").startswith("bare head in 2 frames\nhelmet in 1 frame\n")
    marks = "return [...document.querySelectorAll('#score-chart .same, #score-chart .other')].map(m => m.textContent)"
    assert browser.execute_script(marks) == [
        "bare head, score 0.80, -0.5 s",
        "bare head, score 0.70, 0.0 s",
        "helmet, score 0.60, 0.5 s",
    ]
    assert not image.is_displayed() and clip.get_attribute("poster") == image.get_attribute("src")
    assert browser.execute_script(
        "return getComputedStyle(arguments[0]).width === getComputedStyle(arguments[1]).width",
        *[clip, browser.find_element(By.ID, "verdict")],
    )
    browser.execute_script("arguments[0].onseeked = arguments[0].onplaying = () => arguments[0].dataset.played = true", clip)
    press(browser, Keys.TAB, Keys.SPACE)
    assert browser.switch_to.active_element == clip
    until(browser, lambda: clip.get_attribute("data-played"))
    until(browser, lambda: browser.execute_script("return arguments[0].currentTime === 0 && arguments[0].paused", clip))
    assert browser.execute_script("return arguments[0].videoWidth", clip) == 160
    press(browser, Keys.ARROW_DOWN)  # an alert without clip
    until(browser, lambda: text_of(browser, "#what") == "bare head, yard / <b>lane</b>")
    until(browser, image.is_displayed)
    assert not clip.is_displayed() and not browser.find_element(By.ID, "scores").is_displayed()
    assert browser.get_log("browser") == []


def test_operator_sees_frame_only_after_asking(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    box, address = judged
    open_alerts(browser, address, TOKEN)
    press(browser, Keys.ARROW_DOWN)
    until(browser, lambda: browser.find_element(By.ID, "show-frame").is_displayed())
    assert not (box.folder / "viewings.jsonl").exists()
    browser.find_element(By.ID, "show-frame").click()
    until(browser, lambda: browser.find_element(By.ID, "image").get_attribute("src").endswith("/frame.jpg"))
    until(browser, lambda: (box.folder / "viewings.jsonl").exists())
    box.outbox.put(clip_of(box.alerts[-1], -0.5, 1.0, ()), b"a clip that comes later")
    until(browser, lambda: browser.execute_script("return shown.has_clip"))
    shown = [browser.find_element(By.ID, part).is_displayed() for part in ("image", "clip", "show-frame")]
    assert shown == [True, False, False]  # the frame stays, and is not offered again


def test_viewer_sees_alerts_and_cannot_judge(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    box, address = judged
    wanted = f"{address}/alerts.html#{box.alerts[-1].id}"
    browser.get(wanted)  # as from a notification
    for token in ("wrong-wrong-wrong-wrong", VIEWER):
        assert browser.current_url == f"{address}/login?to=alerts.html#{box.alerts[-1].id}"
        sign_in(browser, token)
    assert browser.current_url == wanted
    until(browser, lambda: text_of(browser, "#decided") == "to judge")
    assert not browser.find_element(By.ID, "decide").is_displayed()
    press(browser, "c")
    status = """return fetch(`api/alerts/${location.hash.slice(1)}/verdict`, {method: "POST", body: "{}",
        headers: {"Content-Type": "application/json"}}).then(r => r.status)"""
    assert browser.execute_script(status) == 403
    browser.delete_all_cookies()  # as after a restart of the box
    until(browser, lambda: browser.current_url == f"{address}/login?to=alerts.html#{box.alerts[-1].id}")
    assert all(past.verdict is None for past in box.desk.history.alerts(AlertQuery()))


def test_alerts_fit_phone_tablet_and_desktop_in_light_and_dark(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    box, address = judged
    box.decide("false_alarm", actual="other", comment="a ball")
    open_alerts(browser, address, TOKEN)
    for width in (390, 768, 1280):
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_script(f"location.hash = '{box.alert.id}'")
        until(browser, lambda: text_of(browser, "#decided .badge") == "false alarm: something else")
        assert browser.find_element(By.CLASS_NAME, "list").is_displayed() == (width >= 960)
        assert faint_texts(browser) == [], width
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), width
        if width < 960:
            browser.find_element(By.ID, "back").click()
            until(browser, lambda: browser.find_element(By.CLASS_NAME, "list").is_displayed())
            assert faint_texts(browser) == [], width


def test_page_of_another_site_can_neither_frame_nor_judge_nor_read(browser: webdriver.Chrome, judged: tuple[Box, str]) -> None:
    """The browser is signed in to the box, and then visits a page that attacks it from another port of the same machine."""
    box, address = judged
    open_alerts(browser, address, TOKEN)
    target = f"{address}/api/alerts/{box.alert.id}/verdict"
    page = f"""<!doctype html><title>attack</title><iframe src="{address}/alerts.html"></iframe>
        <img src="{address}/alerts/{box.alert.id}/snapshot.jpg"><iframe name="sink"></iframe>
        <form action="{target}" method="post" enctype="text/plain" target="sink">
        <input name='{{"verdict":"confirmed","comment":"' value='"}}'></form><script>
        const kinds = ["text/plain", "application/json"].map((kind) => fetch("{target}", {{method: "POST",
            credentials: "include", headers: {{"Content-Type": kind}}, body: '{{"verdict": "confirmed"}}'}})
            .then((r) => r.text()));
        kinds.push(fetch("{address}/api/alerts", {{credentials: "include"}}).then((r) => r.text()));
        document.forms[0].submit();
        Promise.allSettled(kinds).then((all) => {{ document.title = all.map((one) => one.status).join(" "); }});</script>"""

    class Attack(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

    with serving(Attack) as attacker:
        browser.get(f"http://{attacker}/")
        until(browser, lambda: browser.title == "rejected rejected rejected")
        image = "const image = document.querySelector('img'); return image.complete && image.naturalWidth"
        assert until(browser, lambda: browser.execute_script(image) is not False) and browser.execute_script(image) == 0
        complaints = " ".join(entry["message"] for entry in browser.get_log("browser"))
        assert "frame-ancestors 'none'" in complaints
    past = box.desk.history.alert(box.alert.id)
    assert past is not None and past.verdict is None


def discard(browser: webdriver.Chrome) -> None:
    browser.find_element(By.ID, "discard").click()
    until(browser, lambda: not browser.find_element(By.ID, "save").is_enabled())


def test_operator_adds_rule_and_draws_its_zone_with_pointer_and_keys(browser: webdriver.Chrome, site: Site) -> None:
    browser.get(site.address)
    sign_in(browser, TOKEN)
    until(browser, lambda: text_of(browser, "#cameras .state") == "live")
    browser.get(f"{site.address}/rules.html")
    until(browser, lambda: browser.execute_script("return document.querySelector('#frame').naturalWidth") == 96)
    assert text_of(browser, "#none") == "No zones: the whole frame counts."
    assert text_of(browser, "nav [aria-current]") == "Rules"
    browser.find_element(By.ID, "add-rule").send_keys(Keys.ENTER)
    press(browser, "Doors", Keys.ENTER)
    assert browser.find_element(By.ID, "new-name").is_displayed()  # refused before anything is drawn
    press(browser, Keys.HOME, Keys.DELETE, "d", Keys.ENTER, "helmet")  # the violation has the focus after the name
    browser.find_element(By.ID, "add").click()
    press(browser, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP)  # the first corner has the focus: 0.3, 0.3
    size = browser.find_element(By.ID, "handles").size
    second = browser.find_element(By.CSS_SELECTOR, ".handle[data-corner='1']:not(.middle)")
    ActionChains(browser).click_and_hold(second).move_by_offset(round(0.3 * size["width"]), 0).release().perform()
    browser.find_element(By.CSS_SELECTOR, ".handle.middle[data-corner='2']").send_keys(Keys.ENTER)  # a fifth corner
    press(browser, Keys.ARROW_DOWN)
    name = browser.find_element(By.CSS_SELECTOR, "#zones input")
    name.clear()
    name.send_keys("<b>door</b>")
    assert not browser.find_element(By.ID, "camera").is_enabled()  # or the drawing would be lost
    asks = "const leave = new Event('beforeunload', {cancelable: true}); return !window.dispatchEvent(leave)"
    assert browser.execute_script(asks)  # before the drawing is lost
    browser.delete_all_cookies()
    browser.find_element(By.ID, "save").click()
    until(browser, lambda: text_of(browser, "#problem") == "You are signed out: sign in in another tab, then try again.")
    again = "fetch('login', {method: 'POST', body: new URLSearchParams({token: arguments[0]})}).then(arguments[1])"
    browser.execute_async_script(again, TOKEN)
    browser.execute_script("const save = document.querySelector('#save'); save.click(); save.click()")
    until(browser, lambda: text_of(browser, "#done") == "Saved: the rule is in force.")
    assert [option.text for option in Select(browser.find_element(By.ID, "rule")).options] == ["default", "doors"]  # not (new)
    assert not browser.execute_script(asks)
    rules = site.runtime.settings.rules_of("gate")
    assert set(rules) == {"default", "doors"} and rules["doors"].violation_class == "helmet" and rules["default"].zones == {}
    [(zone, corners)] = rules["doors"].zones.items()
    assert zone == "<b>door</b>" and corners is not None and len(corners) == 5
    assert [corners[0], corners[2], corners[3], corners[4]] == [(0.29, 0.28), (0.7, 0.7), (0.5, 0.71), (0.3, 0.7)]
    assert corners[1] == pytest.approx((1.0, 0.3), abs=0.01)
    assert "<b>door</b>" in browser.find_element(By.ID, "yaml").get_attribute("textContent")
    for details in browser.find_elements(By.CSS_SELECTOR, "#settings details:not([open]) summary"):
        details.send_keys(Keys.ENTER)
    for width in (390, 768, 1280):
        browser.set_window_size(width, 900)
        fits = "const page = document.documentElement; return page.scrollWidth <= page.clientWidth"
        assert browser.execute_script(fits), width  # with a corner at the edge
    assert faint_texts(browser) == []

    browser.find_element(By.CSS_SELECTOR, ".handle[data-corner='3']:not(.middle)").send_keys(Keys.DELETE)
    first = browser.find_element(By.CSS_SELECTOR, ".handle[data-corner='0']:not(.middle)")
    ActionChains(browser).click_and_hold(first).move_by_offset(size["width"], size["height"] // 3).release().perform()
    browser.find_element(By.ID, "save").click()
    until(browser, lambda: "crosses itself" in text_of(browser, "#zones-problem"))  # as in edge.yaml
    discard(browser)
    browser.find_element(By.ID, "schedule").send_keys("Mon-Fri 6 to 18")
    browser.find_element(By.ID, "save").click()
    until(browser, lambda: "expected times such as 06:00-18:00" in text_of(browser, "#schedule-problem"))
    assert browser.execute_script("return document.activeElement.id") == "schedule"
    discard(browser)
    assert text_of(browser, "#schedule-problem") == ""
    dates = browser.find_element(By.ID, "exceptions")
    dates.send_keys("2026-12-24 off\n2026-12-31: 08:00-12:00, 13:00-17:00")
    read = """{"2026-12-24":[],"2026-12-31":["08:00-12:00","13:00-17:00"]}"""
    assert f"exceptions: {read}\n" in browser.find_element(By.ID, "yaml").get_attribute("textContent")
    dates.send_keys("\n2026-12-31 off")
    browser.find_element(By.ID, "save").click()
    until(browser, lambda: "expected times such as 06:00-18:00, got 'off'" in text_of(browser, "#exceptions-problem"))
    discard(browser)
    browser.find_element(By.ID, "cooldown_s").send_keys("e")  # 10e is no number
    browser.find_element(By.ID, "save").click()
    assert "cannot read this number" in text_of(browser, "#cooldown_s-problem")
    discard(browser)
    browser.find_element(By.ID, "remove-rule").click()
    until(browser, lambda: text_of(browser, "#done") == "The rule doors is removed.")
    for left in ({"default", "doors"}, {"default"}):
        browser.find_element(By.ID, "undo").click()
        until(browser, lambda wanted=left: set(site.runtime.settings.rules_of("gate")) == wanted)
        until(browser, lambda: text_of(browser, "#done") == "The last change was undone.")
    twice = """{camera: "gate", rule: "default", settings: {compliant_classes: ["helmet", "helmet"]}}"""
    browser.execute_async_script(f"change('api/rules', {twice}, '').then(arguments[0])")  # the form gives the class once
    assert site.runtime.settings.rules_of("gate")["default"].compliant_classes == ("helmet", "helmet")
    assert browser.find_element(By.ID, "camera").is_enabled() and not browser.find_element(By.ID, "save").is_enabled()
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    refused = [c for c in complaints if "409" in c or "401" in c]
    assert len(refused) == len(complaints) >= 3, complaints  # what was refused, and nothing else


class PrefixProxy:
    """A reverse proxy that serves the page below /box7/ and removes that prefix."""

    def __init__(self, target: str) -> None:
        self._target, self._loop = target, asyncio.new_event_loop()
        self._started, self._stopping = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self.port = 0

    async def _serve(self) -> None:
        async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:

            async def forward(request: web.Request) -> web.Response:
                address = f"{self._target}/{request.match_info['path']}"
                headers = {k: v for k, v in request.headers.items() if k in ("Cookie", "Content-Type")}
                body = await request.read()
                async with session.request(
                    request.method, address, data=body, headers=headers, allow_redirects=False
                ) as answer:
                    kept = [(k, v) for k, v in answer.headers.items() if k not in ("Content-Length", "Transfer-Encoding")]
                    return web.Response(status=answer.status, body=await answer.read(), headers=CIMultiDict(kept))

            app = web.Application()
            app.router.add_route("*", "/box7/{path:.*}", forward)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._started.set()
            await self._stopping.wait()
            await runner.cleanup()

    def __enter__(self) -> str:
        self._thread.start()
        self._started.wait(10)
        return f"http://127.0.0.1:{self.port}/box7/"

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)


def test_page_works_behind_proxy_with_path_prefix(browser: webdriver.Chrome, site: Site) -> None:
    with PrefixProxy(site.address) as address:
        browser.get(address)
        assert browser.current_url == f"{address}login"
        sign_in(browser, "wrong-wrong-wrong-wrong")
        assert "Wrong token" in text_of(browser, "form")
        sign_in(browser, TOKEN)
        assert browser.current_url == address
        until(browser, lambda: text_of(browser, "#cameras .state") == "live")
        until(browser, lambda: browser.execute_script(MEAN_COLOUR))  # the image arrives
        assert browser.get_cookies()[0]["path"] == "/box7"
        for page, loaded in (("Alerts", "#precision:not(:empty)"), ("Rules", "#zones")):
            follow(browser, By.LINK_TEXT, page)
            assert browser.current_url == f"{address}{page.lower()}.html"
            until(browser, lambda loaded=loaded: browser.find_elements(By.CSS_SELECTOR, loaded))
        until(browser, lambda: browser.execute_script("return document.getElementById('frame').naturalWidth"))
        follow(browser, By.LINK_TEXT, "Live")
        follow(browser, By.ID, "report")
        assert browser.current_url.startswith(f"{address}compliance.html")
        browser.back()
        follow(browser, By.CSS_SELECTOR, "header button")
        assert browser.current_url == f"{address}login"
        assert [entry for entry in browser.get_log("browser") if "401" not in entry["message"]] == []


def test_page_shows_compliance_and_prints_report(browser: webdriver.Chrome, site: Site) -> None:
    now = time.time()
    hours = [int((now - 3600 * ago) // 900 * 900) for ago in (2, 1)]
    figures = {Key(hours[0], "gate", "default", ""): Count(3, 1), Key(hours[1], "yard", "default", "lane"): Count(5, 0)}
    site.runtime.compliance.store.write(figures, {}, 0)
    browser.get(site.address)
    sign_in(browser, TOKEN)
    until(browser, lambda: ": 8 compliant, 1 with violation, 88.9 %" in text_of(browser, "#compliance-summary"))
    assert text_of(browser, "#compliance-summary").startswith("Since 20")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#chart rect.compliant")) == 2
    Select(browser.find_element(By.ID, "camera")).select_by_visible_text("yard")
    until(browser, lambda: ": 5 compliant, 0 with violation, 100.0 %" in text_of(browser, "#compliance-summary"))
    heights = [r.get_attribute("height") for r in browser.find_elements(By.CSS_SELECTOR, "#chart rect")]
    assert heights == ["120", "0"]
    assert [option.text for option in Select(browser.find_element(By.ID, "unit")).options] == ["hour", "day", "week"]
    for width in (1280, 500):
        browser.set_window_size(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), width
    browser.find_element(By.ID, "report").click()
    until(browser, lambda: text_of(browser, "h1").startswith("Compliance since 20"))
    assert "gate\tdefault\t\t3\t1\t75.0 %" in text_of(browser, "table")
    style = "return getComputedStyle(document.querySelector('table')).borderCollapse"
    assert browser.execute_script(style) == "collapse"  # the policy lets the page's own style through
    assert browser.get_log("browser") == []
