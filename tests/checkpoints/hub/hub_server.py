"""A hub on 127.0.0.1 that speaks as much of the Hugging Face API as a download needs, and fails on demand."""

import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import quote, unquote, urlsplit

import pytest

from minigen.checkpoints.hub import resolve
from minigen.errors import SourceError


@dataclass
class Repo:
    """Commits by name of a branch, tag or commit; `fault` is (status, X-Error-Code) for whatever is asked."""

    revisions: dict[str, dict[str, bytes]]
    fault: tuple[int, str] | None = None
    file_fault: tuple[int, str] | None = None


@dataclass
class Hub:
    """What the server has, how it misbehaves, and what it was asked for."""

    repos: dict[str, Repo] = field(default_factory=dict)
    cut: dict[str, int] = field(
        default_factory=dict
    )  # file name -> break off after so many bytes, every time
    sent: dict[str, bytes] = field(
        default_factory=dict
    )  # file name -> the bytes that come in place of the right ones
    etags: dict[str, str] = field(
        default_factory=dict
    )  # file name -> its ETag, where it is not its SHA-256
    metadata: bool = (
        True  # the list of files has their sizes and hashes, where it is asked for these
    )
    moved: dict[str, str] = field(default_factory=dict)  # old name of a repo -> the one to go on to
    delay: float = 0.0
    asked: Counter = field(default_factory=Counter)  # "GET name" of files, "list org/name@revision"
    commits: set[str] = field(default_factory=set)  # that files were asked of
    tokens: set[str] = field(default_factory=set)
    url: str = ""

    def add(self, repo, files, revision="main"):
        """A commit of a repo, at a branch and under its own name."""
        commit = sha(files)
        revisions = self.repos.setdefault(repo, Repo({})).revisions
        revisions[revision] = revisions[commit] = files
        return commit

    def fetched(self):
        """The names of the files that were sent, once for each time."""
        return sorted(name[4:] for name in self.asked.elements() if name.startswith("GET "))

    def __enter__(self):
        handler = type("Bound", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Close the port: from now on connections are refused."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def refused(source="org/name", kind=SourceError, **settings):
    """The message, one line, of the error with which a source is refused."""
    with pytest.raises(kind) as caught:
        resolve(source, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def sha(files):
    """A name for a commit: 40 hexadecimal digits that depend on what is in it."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def about(body):
    """What the hub states of a file: large ones, which are any here that are not JSON, have a SHA-256."""
    git = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    if body.startswith(b"{"):
        return {"size": len(body), "blobId": git}
    lfs = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 133}
    return {"size": len(body), "blobId": "0" * 40, "lfs": lfs}


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(with_body=True)

    def do_HEAD(self):
        self.answer(with_body=False)

    def answer(self, with_body):
        time.sleep(self.hub.delay)
        if token := self.headers.get("Authorization"):
            self.hub.tokens.add(token)
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.split("/")[1:]]
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        verb = "revision" if api else "resolve"
        at = next(
            (i for i in (1, 2) if parts[i : i + 1] == [verb]), 0
        )  # a name may have one part or two
        name, rest = "/".join(parts[:at]), parts[at + 1 :]
        if not at:
            self.refuse(404, "")
        elif name in self.hub.moved:
            place = f"/{'api/models/' if api else ''}{self.hub.moved[name]}/{verb}/{'/'.join(map(quote, rest))}"
            self.reply(307, {"Location": f"{place}?{address.query}"}, b"", with_body)
        elif api:
            self.listing(name, "/".join(rest), "blobs" in address.query)
        else:
            self.file(name, rest[0], "/".join(rest[1:]), with_body)

    def find(self, name, revision, is_file):
        repo = self.hub.repos.get(name)
        if repo is None:
            return self.refuse(404, "RepoNotFound")
        if fault := repo.fault or (is_file and repo.file_fault):
            return self.refuse(*fault)
        if revision not in repo.revisions:
            return self.refuse(404, "RevisionNotFound")
        return repo.revisions[revision]

    def listing(self, name, revision, blobs):
        self.hub.asked[f"list {name}@{revision}"] += 1
        files = self.find(name, revision, is_file=False)
        if files is not None:
            stated = about if blobs and self.hub.metadata else lambda body: {}
            siblings = [{"rfilename": file, **stated(body)} for file, body in files.items()]
            body = json.dumps({"id": name, "sha": sha(files), "siblings": siblings}).encode()
            self.reply(200, {"Content-Type": "application/json"}, body)

    def file(self, name, revision, file, with_body):
        self.hub.asked[f"{self.command} {file}"] += 1
        self.hub.commits.add(revision)
        files = self.find(name, revision, is_file=True)
        if files is None:
            return
        if file not in files:
            self.refuse(404, "EntryNotFound")
            return
        body, status = files[file], 200
        etag = self.hub.etags.get(file) or hashlib.sha256(body).hexdigest()
        body = self.hub.sent.get(file, body)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha(files), "Accept-Ranges": "bytes"}
        if requested := self.headers.get("Range"):
            start = int(requested.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        cuts = self.hub.cut.get(file) if with_body else None
        self.reply(status, headers, body, with_body, cuts.pop(0) if cuts else None)

    def refuse(self, status, code):
        body = json.dumps({"error": "no"}).encode()
        self.reply(status, {"X-Error-Code": code} if code else {}, body, self.command == "GET")

    def reply(self, status, headers, body, with_body=True, cut=None):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body if cut is None else body[:cut])
        if with_body and cut is not None:
            self.close_connection = True
