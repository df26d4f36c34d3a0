"""The part of the Hub's protocol that publishing a model needs, on loopback."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

TOKEN = "hf_" + "a" * 34


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """Repos as lists of commits; `faults` maps a part of a path to a status or to `flip`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: dict[str, Any] = {}
        self.seen: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def head(self, repo: str) -> tuple[str, dict[str, bytes]]:
        return self.commits[repo][-1]

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{repo}{len(self.commits[repo])}".encode()).hexdigest()
        self.commits[repo].append((sha, files))
        return sha


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        hub, path = self.server, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.seen.append(f"{self.command} {path}")
        fault = next((fault for part, fault in hub.faults.items() if part in path), None)
        if isinstance(fault, int):
            self.answer({"error": "as asked for"}, fault)
        elif path.startswith("/objects/"):
            hub.objects[path.split("/")[-1]] = body[:-1] + b"?" if fault == "flip" else body
            self.answer({})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "who is it?"}, 401)
        elif path == "/api/whoami-v2":
            self.answer({"type": "user", "name": "org", "orgs": []})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path.endswith("/info/lfs/objects/batch"):
            self.batch(json.loads(body)["objects"])
        else:
            parts = path.split("/")
            verb = (parts[5:] or ["info"])[0].replace("-", "_")
            getattr(self, verb)("/".join(parts[3:5]), body)

    do_GET = do_POST = do_PUT = handle_any

    def create(self, told: dict[str, Any]) -> None:
        repo = f"{told.get('organization', 'org')}/{told['name']}"
        if repo in self.server.commits:
            return self.answer({"url": f"{self.server.address}/{repo}"}, 409)
        self.server.commits[repo] = []
        self.server.private[repo] = told["visibility"] == "private"
        self.server.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.answer({"url": f"{self.server.address}/{repo}"})

    def batch(self, objects: list[dict[str, Any]]) -> None:
        where = f"{self.server.address}/objects"
        told = [{**o, "actions": {"upload": {"href": f"{where}/{o['oid']}"}}} for o in objects]
        self.answer({"transfer": "basic", "objects": told})

    def info(self, repo: str, _body: bytes) -> None:
        sha, files = self.server.head(repo)
        self.answer({"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]})

    revision = info

    def tree(self, repo: str, _body: bytes) -> None:
        files = self.server.head(repo)[1].items()
        self.answer(
            [{"type": "file", "path": n, "size": len(d), "oid": git_id(d)} for n, d in files]
        )

    def preupload(self, repo: str, body: bytes) -> None:
        files = self.server.head(repo)[1]

        def told(name: str) -> dict[str, Any]:
            is_large = name.endswith(".safetensors")
            data = files.get(name)
            digest = hashlib.sha256(data or b"").hexdigest() if is_large else git_id(data or b"")
            mode = "lfs" if is_large else "regular"
            known = {} if data is None else {"oid": digest}
            return {"path": name, "uploadMode": mode, "shouldIgnore": False, **known}

        self.answer({"files": [told(one["path"]) for one in json.loads(body)["files"]]})

    def commit(self, repo: str, body: bytes) -> None:
        hub = self.server
        sha, files = hub.head(repo)
        lines = [json.loads(line) for line in body.splitlines()]
        if lines[0]["value"].get("parentCommit", sha) != sha:
            return self.answer({"error": "not the head"}, 412)
        new = dict(files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del new[value["path"]]
            elif line["key"] == "lfsFile":
                new[value["path"]] = hub.objects[value["oid"]]
            else:
                new[value["path"]] = base64.b64decode(value["content"])
        oid = hub.commit(repo, new)
        return self.answer(
            {"commitUrl": f"{hub.address}/{repo}/commit/{oid}", "commitOid": oid, "success": True}
        )

    def paths_info(self, repo: str, body: bytes) -> None:
        files, found = self.server.head(repo)[1], []
        for name in parse_qs(body.decode())["paths"]:
            data = files[name]
            one = {"type": "file", "path": name, "size": len(data), "oid": git_id(data)}
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(data).hexdigest()
                one["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 100}
            found.append(one)
        self.answer(found)
