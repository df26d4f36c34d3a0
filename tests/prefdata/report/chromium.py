"""Headless Chromium for tests, driven over WebDriver with only the standard library."""

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
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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
