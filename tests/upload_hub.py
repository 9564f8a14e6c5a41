"""A Hugging Face hub on loopback that takes uploads, over the hub's own HTTP protocol, into a folder.

    with UploadHub(tmp_path) as hub:     # HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token, HF_HUB_DISABLE_XET=1

Used by test_push.py and test_rounds_text.py in tests/e2e. What it holds is in FOLDER/models/ORG/NAME and
FOLDER/datasets/ORG/NAME. It has repositories with one branch, git blobs and LFS objects; no Xet storage,
no pull requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin")  # what the hub's .gitattributes gives to LFS
REPO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit|revision)/main")
BATCH = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")


@dataclass
class UploadHub:
    """`faults`: the statuses that the next uploads to the storage are answered with."""

    folder: Path
    token: str = "hf_test_of_an_upload"
    faults: list[int] = field(default_factory=list)
    private: dict[str, bool] = field(default_factory=dict)  # by repository
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)  # repository, message, paths
    received: dict[str, bytes] = field(default_factory=dict)  # LFS objects by their SHA-256
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> UploadHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if self.headers["Authorization"] == f"Bearer {hub.token}":
                    with hub._lock:
                        self.reply(*hub.answer(self.path.partition("?")[0], body))
                else:
                    self.reply(401, {"error": "Invalid username or password."})

            def do_GET(self) -> None:
                self.do_POST()

            def do_PUT(self) -> None:  # to storage, which has no token but a signed address
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with hub._lock:
                    self.reply(hub.store(self.path.rpartition("/")[2], body), {})

            def reply(self, status: int, content: Any) -> None:
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_request(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := REPO.fullmatch(path):
            kind, name, verb = match.groups()
            root = self.folder / kind / name
            if not root.is_dir():
                return 404, {"error": "Repository not found"}
            if verb == "preupload":
                return 200, {"files": [self.mode(root, file["path"]) for file in json.loads(body)["files"]]}
            if verb == "commit":
                return 200, self.commit(root, body)
            return 200, {"id": name, "sha": self.sha(), "siblings": []}
        if BATCH.fullmatch(path):
            return 200, {
                "transfer": "basic",
                "objects": [self.action(o) for o in json.loads(body)["objects"]],
            }
        return 404, {"error": f"no such address: {path}"}

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name, kind = f"{asked['organization']}/{asked['name']}", f"{asked.get('type') or 'model'}s"
        root = self.folder / kind / name
        url = f"{self.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
        if root.is_dir():
            return 409, {"error": "You already created this repo", "url": url}
        root.mkdir(parents=True)
        self.private[f"{kind}/{name}"] = asked.get("visibility") == "private" or asked.get("private") is True
        return 200, {"url": url, "name": name}

    def mode(self, root: Path, path: str) -> dict[str, Any]:
        """How a file shall be sent, and the hash of what is there: a blob's SHA-1, or an object's SHA-256."""
        large = path.endswith(LARGE)
        known = None
        if (root / path).is_file():
            held = (root / path).read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()
            known = hashlib.sha256(held).hexdigest() if large else blob
        return {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
            "oid": known,
        }

    def action(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Where an LFS object is to be put; nowhere if it is there."""
        address = {"upload": {"href": f"{self.endpoint}/storage/{asked['oid']}"}}
        return asked if asked["oid"] in self.received else asked | {"actions": address}

    def store(self, oid: str, body: bytes) -> int:
        if self.faults:
            return self.faults.pop(0)
        assert hashlib.sha256(body).hexdigest() == oid
        self.received[oid] = body
        return 200

    def commit(self, root: Path, body: bytes) -> dict[str, Any]:
        header, *operations = [json.loads(line) for line in body.splitlines()]
        paths = []
        for operation in operations:
            value = operation["value"]
            lfs = operation["key"] == "lfsFile"
            content = self.received[value["oid"]] if lfs else base64.b64decode(value["content"])
            file = root / value["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            paths.append(value["path"])
        name = str(root.relative_to(self.folder))
        self.commits.append((name, header["value"]["summary"], sorted(paths)))
        return {"commitUrl": f"{self.endpoint}/{name}/commit/{self.sha()}", "commitOid": self.sha()}

    def sha(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
