"""`segq watch --web`: a page that is live in a real browser, shows what it should, and that nobody else's page can read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accounts import until
from cli_command import PATIENCE, SEGQ, environment

import segq

pytestmark = pytest.mark.external
pytest.importorskip("aiohttp", reason="the extra `web` is not installed")
BROWSER_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


@contextlib.contextmanager
def served(path: object) -> Iterator[int]:
    """The page of a queue, at this port."""
    page = subprocess.Popen(
        [*SEGQ, "watch", str(path), "--web", "--port", "0", "--interval", "0.05"],
        stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        assert page.stderr is not None
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", page.stderr.readline())
        assert address is not None
        yield int(address[1])
        page.send_signal(signal.SIGTERM)
        assert page.wait(PATIENCE) == 0
        assert "Traceback" not in page.stderr.read()
    finally:
        page.kill()
        page.wait()
        page.stderr.close()  # type: ignore[union-attr]


def answer(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers)
        given = connection.getresponse()
        return given.status, given.headers, given.read()
    finally:
        connection.close()


def told(port: int, wanted: Callable[[str, Any], bool]) -> Any:
    """The data of the first server-sent event that is wanted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/events")
        given = connection.getresponse()
        assert given.headers["Content-Type"] == "text/event-stream"
        deadline, kind = time.monotonic() + PATIENCE, ""
        while time.monotonic() < deadline:
            line = given.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and wanted(kind, data := json.loads(line.removeprefix("data: "))):
                return data
        raise AssertionError("no such event")
    finally:
        connection.close()


def history(port: int) -> Any:
    """What the page is told first."""
    return told(port, lambda kind, _: kind == "history")


def test_looks_come_as_they_are_made_and_begin_with_what_was(queue_path: str) -> None:
    with served(queue_path) as port:
        assert told(port, lambda kind, seen: kind == "look" and seen["state"] == "missing")
        with segq.Queue(queue_path) as q:
            q.put_many(range(7))
            assert told(port, lambda kind, seen: kind == "look" and seen["items"] == 7)
            until(lambda: history(port)["points"], PATIENCE, "what was looked at becomes history")
        past = history(port)
        assert past["points"][-1]["items"] == 7
        assert past["last"]["path"] == queue_path
        assert [event["text"] for event in past["events"]] == ["the queue is there"]
        assert json.loads(answer(port, "/snapshot.json")[2])["items"] == 7


def test_only_who_asks_for_this_server_gets_an_answer_and_nobody_changes_anything(queue_path: str) -> None:
    segq.Queue(queue_path).close()
    with served(queue_path) as port:
        for host in ("127.0.0.1", f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "192.0.2.7"):
            assert answer(port, Host=host)[0] == 200, host
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", ""):
            for path in ("/", "/events", "/snapshot.json"):
                status, _, body = answer(port, path, Host=host)
                assert status == 421, host
                assert queue_path.encode() not in body
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert answer(port, "/", method)[0] == 405
        assert answer(port, "/../pyproject.toml")[0] == 404
        _, headers, body = answer(port)
        assert "Access-Control-Allow-Origin" not in headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert not re.search(rb"(?:src|href)=\"(?!data:)", body)


def test_a_browser_that_goes_away_is_forgotten(queue_path: str) -> None:
    with served(queue_path) as port:
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request("GET", "/events")
            connection.getresponse().readline()
            connection.close()
        assert told(port, lambda kind, _: kind == "look")


def test_a_look_that_fails_ends_the_page(queue_path: str) -> None:
    from segq.watch import Snapshot, Watcher
    from segq.watch.page import serve

    class Broken(Watcher):
        def look(self) -> Snapshot:
            raise RuntimeError("cannot look")

    with pytest.raises(RuntimeError, match="cannot look"):
        serve(Broken(queue_path), interval=0.1, host="127.0.0.1", port=0, say=lambda _: None)


def test_without_the_package_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "aiohttp").mkdir()
    (tmp_path / "aiohttp" / "__init__.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    ended = subprocess.run(
        [sys.executable, "-c", "from segq.cli import main; main()", "watch", "q", "--web"],
        capture_output=True, text=True, env=environment(PYTHONPATH=path), cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "pip install 'segq[web]'" in ended.stderr
    assert "Traceback" not in ended.stderr


# --- in a browser ---


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver here")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    for flag in [*BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = selenium.Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


def wear(browser: Any, *, dark: bool, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def becomes(browser: Any, script: str, expected: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := browser.execute_script(f"return {script}")) != expected:
        assert time.monotonic() < deadline, f"{script} is {found!r}, not {expected!r}"
        time.sleep(0.02)


TEXT = "document.getElementById('{}').textContent"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1100, 900), (390, 844)], ids=["desk", "phone"])
def test_the_page_is_live(browser: Any, queue_path: str, tmp_path: Path, dark: bool, width: int, height: int) -> None:
    wear(browser, dark=dark, width=width, height=height)
    with served(queue_path) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        becomes(browser, TEXT.format("link"), "live")
        becomes(browser, "document.getElementById('there').hidden", True)
        with segq.Topic(queue_path, capacity=1000) as topic, topic.subscribe("<b>mail</b>") as mail:
            topic.put_many(range(600))
            becomes(browser, TEXT.format("items"), "600")
            becomes(browser, TEXT.format("of"), "60 % of 1,000 items")
            mail.get_many(100)
            becomes(browser, TEXT.format("items"), "500")
            becomes(browser, "document.querySelector('#labels tbody td').textContent", "<b>mail</b>")
            becomes(browser, "document.querySelectorAll('#processes tbody tr').length", 1)
            becomes(browser, "document.querySelectorAll('svg path.line').length", 4)
            scrolls = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            assert scrolls <= 0, "the page is wider than the screen"
            ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == dark
            assert browser.save_screenshot(str(tmp_path / "page.png"))
        segq.remove(queue_path)
        becomes(browser, "document.getElementById('absent').hidden", False)
        becomes(browser, "document.querySelector('#events li span').textContent", "the queue is gone")
    becomes(browser, TEXT.format("link"), "connection lost")
    said = [entry for entry in browser.get_log("browser") if "ERR_CONNECTION_REFUSED" not in entry["message"]]
    assert not [entry for entry in said if "events" not in entry["message"]], said
