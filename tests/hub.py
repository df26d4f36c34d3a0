"""Server on loopback with the part of the Hub's protocol that sharing models and sets needs.

Repos are lists of commits; the real clients (huggingface_hub, datasets) connect to it. Faults are
injected by a part of the path: a status, `flip` (a bit of an upload or a download), `cut` (a body
that ends early), `hang` (no answer), or `kill`, which calls back and never answers.
"""

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.croissant import describe_set

TOKEN = "hf_" + "a" * 34
LARGE = (".safetensors", ".parquet", ".arrow")
Files = dict[str, bytes]


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """Server of repos; the name of a dataset is `datasets/ORG/NAME`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, list[tuple[str, Files]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.private: dict[str, bool] = {}
        self.objects: Files = {}
        self.faults: dict[str, Any] = {}
        self.on_request: Callable[[int, str], None] = lambda number, line: None  # noqa: ARG005
        self.seen: list[str] = []
        self.patience = 60.0
        """Seconds until a fault of `hang` ends."""
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def head(self, repo: str, revision: str = "main") -> tuple[str, Files]:
        sha = self.branches[repo][revision]
        return sha, self.files_at(repo, sha)

    def files_at(self, repo: str, sha: str) -> Files:
        return next(files for one, files in self.commits[repo] if one == sha)

    def find(self, repo: str, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a hash."""
        for named in (self.branches.get(repo, {}), self.tags.get(repo, {})):
            if revision in named:
                return named[revision]
        return next((sha for sha, _ in self.commits.get(repo, []) if sha == revision), None)

    def create(self, repo: str, files: Files | None = None, *, private: bool = True) -> str:
        self.commits[repo], self.private[repo] = [], private
        return self.commit(repo, {".gitattributes": b"*.parquet filter=lfs\n"} | (files or {}))

    def commit(self, repo: str, files: Files, branch: str = "main") -> str:
        sha = hashlib.sha1(f"{repo}{len(self.commits[repo])}".encode()).hexdigest()
        self.commits[repo].append((sha, files))
        self.branches.setdefault(repo, {})[branch] = sha
        return sha


def use_loopback(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, str]:
    """Point the clients of this process at a server; return the environment for other processes.

    The client is the installed one: only its environment variables are set.
    """
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(folder / "none"),
        "HF_HUB_CACHE": str(folder / "hub-cache"),
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.address)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    more = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_CACHE": str(folder / "hub-cache"),
    }
    return dict(os.environ) | more


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, value: Any, status: int = 200, code: str = "") -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self._chunks()
        line = f"{self.command} {path}"
        hub.seen.append(line)
        hub.on_request(len(hub.seen), line)
        self.fault = next((fault for part, fault in hub.faults.items() if part in line), None)
        if self.fault == "hang":
            time.sleep(self.server.patience)
            self.close_connection = True
            return
        if isinstance(self.fault, int):
            self.answer({"error": "as asked for"}, self.fault)
        elif path.startswith("/objects/"):
            hub.objects[path.split("/")[-1]] = body[:-1] + b"?" if self.fault == "flip" else body
            self.answer({})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}" and not self._is_open(path):
            self.answer({"error": "who is it?"}, 401)
        elif path == "/api/whoami-v2":
            self.answer({"type": "user", "name": "org", "orgs": []})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        else:
            self.route(path, body)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any

    def _chunks(self) -> bytes:
        """Return a body of unknown length, as streams are sent."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _is_open(self, path: str) -> bool:
        """Return whether the repo is public, so that anybody may read it."""
        return any(
            not private and f"/{repo}" in path for repo, private in self.server.private.items()
        )

    def route(self, path: str, body: bytes) -> None:
        """Find the repo and the request to it."""
        found = re.fullmatch(
            r"(?:/api)?/(?:(?P<kind>datasets|models)/)?(?P<name>[^/]+/[^/]+?)(?:\.git)?"
            r"(?:/(?P<verb>revision|tree|preupload|commit|tag|branch|paths-info|resolve|refs|info|croissant)"
            r"(?:/(?P<rest>.*))?)?",
            path,
        )
        assert found is not None, path
        kind = "datasets/" if found["kind"] == "datasets" else ""
        repo, verb = kind + found["name"], found["verb"] or "revision"
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body)["objects"])
        if repo not in self.server.commits:
            return self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
        if verb == "refs":
            return self.refs(repo)
        revision, _, rest = (found["rest"] or "main").partition("/")
        sha = self.server.find(repo, revision)
        if sha is None and verb not in ("tag", "branch"):
            return self.answer({"error": "no such revision"}, 404, "RevisionNotFound")
        call = getattr(self, verb.replace("-", "_"))
        call(repo, sha, body, revision=revision, rest=rest)
        return None

    def create(self, asked: dict[str, Any]) -> None:
        kind = "datasets/" if asked.get("type") == "dataset" else ""
        repo = f"{kind}{asked.get('organization', 'org')}/{asked['name']}"
        if repo in self.server.commits:
            return self.answer({"url": f"{self.server.address}/{repo}"}, 409)
        self.server.create(repo, private=asked["visibility"] == "private")
        return self.answer({"url": f"{self.server.address}/{repo}"})

    def batch(self, objects: list[dict[str, Any]]) -> None:
        where = f"{self.server.address}/objects"
        some = [
            {**one}
            if hashlib.sha256(self.server.objects.get(one["oid"], b"")).hexdigest() == one["oid"]
            else {**one, "actions": {"upload": {"href": f"{where}/{one['oid']}"}}}
            for one in objects
        ]
        self.answer({"transfer": "basic", "objects": some})

    def revision(self, repo: str, sha: str, *_: object, **__: str) -> None:
        files = self.server.files_at(repo, sha)
        self.answer(
            {
                "id": repo.removeprefix("datasets/"),
                "sha": sha,
                "private": self.server.private[repo],
                "siblings": [{"rfilename": name} for name in files],
            }
        )

    def croissant(self, repo: str, sha: str, *_: object, **__: str) -> None:
        card = self.server.files_at(repo, sha)["README.md"].decode()
        name = repo.removeprefix("datasets/")
        self.answer(describe_set(name, card, self.server.address))

    def refs(self, repo: str) -> None:
        def of(named: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}
                for name, sha in named.items()
            ]

        branches, tags = self.server.branches[repo], self.server.tags.get(repo, {})
        self.answer({"branches": of(branches, "heads"), "tags": of(tags, "tags"), "converts": []})

    def tree(self, repo: str, sha: str, *_: object, rest: str, **__: str) -> None:
        files = self.server.files_at(repo, sha)
        under = f"{rest}/" if rest else ""
        inside = {name: data for name, data in files.items() if name.startswith(under)}
        if rest and not inside:
            return self.answer({"error": "no such entry"}, 404, "EntryNotFound")
        found = [self.entry(name, data) for name, data in inside.items()]
        is_deep = (
            parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        )
        if not is_deep:
            found = [one for one in found if "/" not in one["path"].removeprefix(under)]
        folders = {
            str(parent)
            for name in inside
            for parent in list(Path(name).parents)[:-1]
            if str(parent).startswith(under)
            and (is_deep or "/" not in str(parent).removeprefix(under))
        }
        found += [{"type": "directory", "path": one, "oid": git_id(b"")} for one in sorted(folders)]
        return self.answer(found)

    def entry(self, name: str, data: bytes) -> dict[str, Any]:
        one = {"type": "file", "path": name, "size": len(data), "oid": git_id(data)}
        if name.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            one["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 100}
        return one

    def preupload(self, repo: str, sha: str, body: bytes, **_: str) -> None:
        files = self.server.files_at(repo, sha)

        def known(name: str) -> dict[str, Any]:
            data, is_large = files.get(name), name.endswith(LARGE)
            digest = hashlib.sha256(data or b"").hexdigest() if is_large else git_id(data or b"")
            mode = "lfs" if is_large else "regular"
            there = {} if data is None else {"oid": digest}
            return {"path": name, "uploadMode": mode, "shouldIgnore": False, **there}

        self.answer({"files": [known(one["path"]) for one in json.loads(body)["files"]]})

    def commit(self, repo: str, sha: str, body: bytes, *, revision: str, **_: str) -> None:
        hub = self.server
        lines = [json.loads(line) for line in body.splitlines()]
        if lines[0]["value"].get("parentCommit", sha) != sha:
            return self.answer({"error": "not the head"}, 412)
        new = dict(hub.files_at(repo, sha))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del new[value["path"]]
            elif line["key"] == "lfsFile":
                new[value["path"]] = hub.objects[value["oid"]]
            else:
                new[value["path"]] = base64.b64decode(value["content"])
        is_request = "create_pr=1" in self.path
        branch = f"refs/pr/{len(hub.commits[repo])}" if is_request else revision
        oid = hub.commit(repo, new, branch)
        place = f"{hub.address}/{repo}"
        request = {"pullRequestUrl": f"{place}/discussions/1"} if is_request else {}
        return self.answer(
            {"commitUrl": f"{place}/commit/{oid}", "commitOid": oid, "success": True, **request}
        )

    def tag(self, repo: str, sha: str, body: bytes, **_: str) -> None:
        name = json.loads(body)["tag"]
        tags = self.server.tags.setdefault(repo, {})
        if name in tags:
            return self.answer({"error": "exists"}, 409)
        tags[name] = sha
        return self.answer({})

    def branch(self, repo: str, _sha: str, body: bytes, *, revision: str, **__: str) -> None:
        start = json.loads(body or b"{}").get("startingPoint", "main")
        self.server.branches[repo][revision] = self.server.find(repo, start) or ""
        self.answer({})

    def paths_info(self, repo: str, sha: str, body: bytes, **_: str) -> None:
        files = self.server.files_at(repo, sha)
        names = (
            parse_qs(body.decode()).get("paths", [])
            if body[:1] != b"{"
            else json.loads(body)["paths"]
        )
        self.answer([self.entry(name, files[name]) for name in names if name in files])

    def resolve(self, repo: str, sha: str, *_: object, rest: str, **__: str) -> None:
        data = self.server.files_at(repo, sha).get(rest)
        if data is None:
            return self.answer(None, 404, "EntryNotFound")
        digest = hashlib.sha256(data).hexdigest() if rest.endswith(LARGE) else git_id(data)
        total = len(data)
        begin, status = 0, 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            begin, end = int(asked[1]), int(asked[2] or total - 1)
            data, status = data[begin : end + 1], 206
        if self.fault == "flip" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", sha)
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(data) - 1}/{total}")
        if rest.endswith(LARGE):
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(total))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        with suppress(ConnectionError):  # the client was killed
            self.wfile.write(data)
        return None
