"""Headless Chromium for tests, driven over WebDriver with only the standard library."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-lcd-text",
    "--hide-scrollbars",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Texts that a reader cannot see whole: a page wider than its window, an element that hides a part
# of its text, a label outside of its picture. Texts for screen readers are hidden on purpose.
CUT = """
const found = [];
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth) found.push(`${page.scrollWidth} wide`);
const aside = node => node.closest('.unseen, thead') &&
  getComputedStyle(node.closest('.unseen, thead')).clipPath !== 'none';
for (const node of document.body.querySelectorAll('*')) {
  const style = getComputedStyle(node);
  const hides = ['hidden', 'clip'].includes(style.overflowX) && node.namespaceURI.endsWith('xhtml');
  if (hides && node.scrollWidth > node.clientWidth && !aside(node))
    found.push(`${node.localName}.${node.className} hides a part`);
  const own = node.getBoundingClientRect();
  if (own.width && own.right > page.clientWidth + 1 && !aside(node) && !node.closest('.scroll'))
    found.push(`${node.localName}.${node.className} is outside of the page`);
}
for (const text of document.querySelectorAll('svg text')) {
  const [own, all] = [text, text.ownerSVGElement].map(one => one.getBoundingClientRect());
  const isCut = own.left < all.left - 1 || own.right > all.right + 1;
  if (isCut) found.push(`${text.textContent} is cut`);
}
return found;
"""


class Chromium:
    """Session of a browser: one page at a time, and its network requests."""

    def __init__(self, address: str, capabilities: dict[str, Any]) -> None:
        self._address = address
        value = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{value['sessionId']}"

    def open(self, path: Path) -> None:
        self._call("POST", f"{self._session}/url", {"url": path.as_uri()})

    def run(self, script: str) -> Any:
        body = {"script": script, "args": []}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def dialog(self) -> str | None:
        """Return the text of the open dialog, or None."""
        try:
            return str(self._call("GET", f"{self._session}/alert/text"))
        except urllib.error.HTTPError as error:
            if json.load(error)["value"]["error"] != "no such alert":
                raise
            return None

    def dismiss(self) -> None:
        self._call("POST", f"{self._session}/alert/dismiss", {})

    def resize(self, width: int) -> None:
        """Set the page's width, as on a phone; the browser's own windows are at least 500 wide."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        body = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def prefer_dark(self, is_dark: bool) -> None:
        """Set the color scheme that the reader prefers."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        body = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": [feature]}}
        self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def capture(self, path: Path, width: int, height: int, at: str | None = None) -> None:
        """Write a picture of the page, from its top or that of the element with an id."""
        script = (
            "const found = document.getElementById(arguments[0]);"
            "return found ? found.getBoundingClientRect().top + window.scrollY - 16 : 0;"
        )
        body = {"script": script, "args": [at]}
        top = self._call("POST", f"{self._session}/execute/sync", body)
        whole = self.run("return document.documentElement.scrollHeight")
        area = {"x": 0, "y": top, "width": width, "height": min(height, whole - top), "scale": 1}
        params = {"format": "png", "captureBeyondViewport": True, "clip": area}
        body = {"cmd": "Page.captureScreenshot", "params": params}
        found = self._call("POST", f"{self._session}/goog/cdp/execute", body)
        path.write_bytes(base64.b64decode(found["data"]))

    def requests(self) -> list[str]:
        """Return the URLs that were requested since the last call."""
        body = {"type": "performance"}
        entries = self._call("POST", f"{self._session}/se/log", body)
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        self._call("DELETE", self._session)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]


@contextmanager
def open_chromium(profile: Path) -> Iterator[Chromium]:
    """Open a browser with a new profile; close it and its driver afterwards."""
    assert BROWSER
    assert DRIVER
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}", "--silent"])
    try:
        _wait_for(port)
        options = {"binary": BROWSER, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        capabilities = {
            "browserName": "chrome",
            "unhandledPromptBehavior": "ignore",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"performance": "ALL"},
        }
        browser = Chromium(f"http://127.0.0.1:{port}", capabilities)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(port)
