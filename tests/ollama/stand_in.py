#!/usr/bin/python3 -IS
"""A stand-in for Ollama, for tests only: the documented part of its API over the wheel of llama.cpp.

It lies in an archive of the official layout as `bin/ollama`, with the wheel in `lib/ollama/`. Like the real
one it keeps blobs and manifests below OLLAMA_MODELS, computes in a process of its own per model (`ollama
runner`), lists a name without a tag as `NAME:latest`, and takes models in by `ollama create`. It never
reaches a network.
Source: Ollama's docs/api.md and docs/openai.md.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
LIBRARY = HOME / "lib" / "ollama"
VERSION = "0.0.0-stand-in"
MODEL_LAYER = "application/vnd.ollama.image.model"
CHUNK = 1 << 20


def address() -> tuple[str, int]:
    host, _, port = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
    return host, int(port)


def models_directory() -> Path:
    return Path(os.environ.get("OLLAMA_MODELS") or Path(os.environ["HOME"]) / ".ollama/models")


def tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def manifest_path(name: str) -> Path:
    model, _, tag = tagged(name).partition(":")
    return models_directory() / "manifests/registry.ollama.ai/library" / model / tag


def blob_path(digest: str) -> Path:
    return models_directory() / "blobs" / digest.replace(":", "-")


def manifests() -> dict[str, dict[str, Any]]:
    library = models_directory() / "manifests/registry.ollama.ai/library"
    return {f"{p.parent.name}:{p.name}": json.loads(p.read_text()) for p in sorted(library.glob("*/*"))}


def weights(name: str) -> Path | None:
    found = manifests().get(tagged(name))
    return blob_path(found["layers"][0]["digest"]) if found else None


class Runner:
    """The process that computes with one model."""

    def __init__(self, path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        argv = [sys.executable, "-IS", __file__, "runner", str(path), str(self.port)]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        while self.process.poll() is None:
            try:
                if self.ask("GET", "/health").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError("llama runner process has terminated")

    def ask(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        return connection.getresponse()


class Handler(BaseHTTPRequestHandler):
    runners: dict[Path, Runner] = {}
    lock = threading.Lock()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        if self.path.startswith("/api/blobs/"):
            self.say(200 if blob_path(self.path.rpartition("/")[2]).exists() else 404, "")
        else:
            self.say(200, "")

    def do_GET(self) -> None:
        if self.path == "/":
            self.say(200, "Ollama is running", "text/plain; charset=utf-8")
        elif self.path == "/api/version":
            self.say(200, {"version": VERSION})
        elif self.path == "/api/tags":
            self.say(200, {"models": [self.entry(name, data) for name, data in manifests().items()]})
        elif self.path == "/api/ps":
            self.say(200, {"models": []})
        elif self.path == "/v1/models":
            entries = [
                {"id": name, "object": "model", "created": 0, "owned_by": "library"} for name in manifests()
            ]
            self.say(200, {"object": "list", "data": entries})
        else:
            self.say(404, "404 page not found", "text/plain")

    def do_DELETE(self) -> None:
        name = self.body().get("model", "")
        if self.path != "/api/delete" or not manifest_path(name).exists():
            self.say(404, {"error": f"model '{name}' not found"})
        else:
            manifest_path(name).unlink()
            self.say(200, "")

    def do_POST(self) -> None:
        if self.path.startswith("/api/blobs/"):
            self.take_blob(self.path.rpartition("/")[2])
            return
        body = self.body()
        name = body.get("model") or body.get("name") or ""
        if self.path == "/api/create":
            self.create(name, body)
        elif self.path == "/api/pull":
            self.stream([{"status": "pulling manifest"}, {"error": "pull model manifest: no route to host"}])
        elif self.path not in (
            *("/api/show", "/api/chat", "/api/generate"),
            *("/v1/chat/completions", "/v1/completions"),
        ):
            self.say(404, "404 page not found", "text/plain")
        elif (path := weights(name)) is None:
            error = f"model '{name}' not found"
            is_openai = self.path.startswith("/v1/")
            self.say(
                404,
                {"error": {"message": error, "type": "api_error", "code": None}}
                if is_openai
                else {"error": error},
            )
        elif self.path == "/api/show":
            self.say(200, {"modelfile": f"FROM {path}", "details": {"format": "gguf"}, "model_info": {}})
        elif self.path.startswith("/v1/"):
            self.forward(self.runner(path).ask("POST", self.path, body))
        else:
            self.infer(name, path, body)

    def infer(self, name: str, path: Path, body: dict[str, Any]) -> None:
        """/api/chat and /api/generate."""
        chat = self.path == "/api/chat"
        options = body.get("options") or {}
        ask: dict[str, Any] = {"stream": True}
        if "num_predict" in options:
            ask["max_tokens"] = options["num_predict"]
        if "temperature" in options:
            ask["temperature"] = options["temperature"]
        ask["messages"] = body["messages"] if chat else [{"role": "user", "content": body.get("prompt", "")}]
        answer = self.runner(path).ask("POST", "/v1/chat/completions", ask)
        pieces = []
        for line in answer:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    pieces.append(choice.get("delta", {}).get("content") or "")
        pieces = [piece for piece in pieces if piece]

        def message(text: str, **more: Any) -> dict[str, Any]:
            said = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
            return {"model": name, "created_at": "2026-01-01T00:00:00Z", **said, **more}

        end = {"done": True, "done_reason": "stop", "eval_count": len(pieces), "total_duration": 1}
        if body.get("stream", True):
            self.stream([*(message(piece, done=False) for piece in pieces), message("", **end)])
        else:
            self.say(200, message("".join(pieces), **end))

    def runner(self, path: Path) -> Runner:
        with self.lock:
            found = self.runners.get(path)
            if found is None or found.process.poll() is not None:
                found = self.runners[path] = Runner(path)
            return found

    def create(self, name: str, body: dict[str, Any]) -> None:
        digests = list((body.get("files") or {}).values())
        if not digests or not blob_path(digests[0]).exists():
            self.say(400, {"error": "neither 'from' or 'files' was specified"})
            return
        blob = blob_path(digests[0])
        if blob.open("rb").read(4) != b"GGUF":
            self.say(400, {"error": "only GGUF is supported"})
            return
        os.utime(blob)  # as the real one does: its blobs must be files of its own
        layer = {"mediaType": MODEL_LAYER, "digest": digests[0], "size": blob.stat().st_size}
        path = manifest_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))
        self.stream([{"status": "writing manifest"}, {"status": "success"}])

    def take_blob(self, digest: str) -> None:
        """POST /api/blobs/DIGEST, with a length or in chunks."""
        blob_path(digest).parent.mkdir(parents=True, exist_ok=True)
        fresh = blob_path(digest).with_suffix(".part")
        state, left = hashlib.sha256(), int(self.headers["Content-Length"])
        with fresh.open("wb") as target:
            while left and (chunk := self.rfile.read(min(CHUNK, left))):
                target.write(chunk)
                state.update(chunk)
                left -= len(chunk)
        if f"sha256:{state.hexdigest()}" != digest:
            fresh.unlink()
            self.say(400, {"error": "digest mismatch"})
        else:
            fresh.rename(blob_path(digest))
            self.say(201, "")

    @staticmethod
    def entry(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
        layer = manifest["layers"][0]
        return {
            "name": name,
            "model": name,
            "modified_at": "2026-01-01T00:00:00Z",
            "size": layer["size"],
            "digest": layer["digest"].removeprefix("sha256:"),
            "details": {"format": "gguf"},
        }

    def body(self) -> dict[str, Any]:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found: dict[str, Any] = json.loads(data or b"{}")
        return found

    def say(self, status: int, content: Any, kind: str = "application/json; charset=utf-8") -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def stream(self, items: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        for item in items:
            self.wfile.write(json.dumps(item).encode() + b"\n")

    def forward(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type") or "application/json")
        self.end_headers()
        while chunk := answer.read1(65536):
            self.wfile.write(chunk)
            self.wfile.flush()


def serve() -> int:
    def stop(*_: Any) -> None:
        for runner in Handler.runners.values():
            runner.process.terminate()
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    models_directory().mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(address(), Handler)
    print(f"Listening on {os.environ.get('OLLAMA_HOST')} (version {VERSION})", file=sys.stderr, flush=True)
    server.serve_forever()
    return 0


def run_model(path: str, port: int) -> int:
    """`ollama runner`: llama.cpp's server with one model, until told to stop."""
    sys.path.insert(0, str(LIBRARY))
    import xllamacpp

    found = xllamacpp.CommonParams()
    found.hostnames, found.port, found.model.path = ["127.0.0.1"], port, path
    found.n_parallel = int(os.environ.get("OLLAMA_NUM_PARALLEL", "1"))
    found.n_ctx = int(os.environ.get("OLLAMA_CONTEXT_LENGTH") or "4096") * found.n_parallel
    threads = len(os.sched_getaffinity(0))
    found.cpuparams.n_threads = found.cpuparams_batch.n_threads = threads
    found.offline, found.ui, found.verbosity = True, False, 1
    found.cache_ram_mib, found.fit_params, found.warmup = 0, False, False
    server = xllamacpp.Server(found)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    del server
    return 0


def ask(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address(), timeout=600)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def create(name: str, modelfile: str) -> int:
    """`ollama create NAME -f MODELFILE`."""
    path = next(
        line[5:].strip() for line in Path(modelfile).read_text().splitlines() if line.startswith("FROM ")
    )
    with open(path, "rb") as file:  # noqa: PTH123
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if ask("HEAD", f"/api/blobs/{digest}")[0] != 200:
            file.seek(0)
            size = str(os.fstat(file.fileno()).st_size)
            status, text = ask("POST", f"/api/blobs/{digest}", file, {"Content-Length": size})
            if status != 201:
                print(f"Error: {text}", file=sys.stderr)
                return 1
    status, text = ask("POST", "/api/create", json.dumps({"model": name, "files": {Path(path).name: digest}}))
    if status != 200 or '"success"' not in text:
        print(f"Error: {text.strip()}", file=sys.stderr)
        return 1
    print("success")
    return 0


def main(words: list[str]) -> int:
    match words:
        case ["serve"]:
            return serve()
        case ["runner", path, port]:
            return run_model(path, int(port))
        case ["create", name, "-f", modelfile]:
            return create(name, modelfile)
        case ["pull", name]:
            status, text = ask("POST", "/api/pull", json.dumps({"model": name}))
            print(f"Error: {json.loads(text.splitlines()[-1]).get('error', status)}", file=sys.stderr)
            return 1
        case ["list"]:
            for entry in json.loads(ask("GET", "/api/tags")[1])["models"]:
                print(entry["name"])
            return 0
        case ["--version"]:
            print(f"ollama version is {VERSION}")
            return 0
    print("usage: ollama serve|create|pull|list|--version", file=sys.stderr)
    return 2


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    sys.exit(main(sys.argv[1:]))
