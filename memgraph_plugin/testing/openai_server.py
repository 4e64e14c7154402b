"""A server on this machine that talks like OpenAI's: to test the hosted path without a key or a network."""

from __future__ import annotations

import base64
import json
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage

from memgraph_plugin.testing.chat_model import as_forced_call
from memgraph_plugin.testing.embeddings import HashingEmbeddings

Reply = str | dict[str, Any] | AIMessage
"""A text, an object (sent as JSON text), or a message with tool calls."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent: the path below /v1, and the JSON."""

    path: str
    body: dict[str, Any]
    authorization: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a server may do instead of answering: a status, a body, after silence of `hang` seconds."""

    status: int = 500
    body: str = '{"error": {"message": "out of order", "type": "server_error"}}'
    hang: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class OpenAIServer:
    """Serves /v1/chat/completions, /v1/embeddings and /v1/models on loopback, as a context manager.

    `replies` are given in their order, each to one chat request, or one function of the request's JSON gives
    them all. After the last reply comes a 500 that says so. `faults` come first: each is taken by the next
    request of any kind. `requests` holds what was asked. `embeddings` are served; by default, those of
    `HashingEmbeddings`, which are made with as many `dimensions` as are asked for.
    """

    def __init__(
        self,
        replies: Sequence[Reply] | Callable[[dict[str, Any]], Reply] = (),
        *,
        faults: Sequence[Fault] = (),
        dimensions: int = 256,
        embeddings: Embeddings | None = None,
    ) -> None:
        self.replies = replies if callable(replies) else list(replies)
        self.faults = list(faults)
        self.requests: list[Request] = []
        self._dimensions = dimensions
        self._embeddings = embeddings
        self._given = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> OpenAIServer:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def chat(self, body: dict[str, Any]) -> AIMessage:
        """The next reply, as a message.

        Raises:
            IndexError: the script has ended.
        """
        with self._lock:
            turn = self._given
            self._given += 1
        if not callable(self.replies) and turn >= len(self.replies):
            raise IndexError(f"chat request {turn + 1}, but the script has only {len(self.replies)} replies")
        reply = self.replies(body) if callable(self.replies) else self.replies[turn]
        if isinstance(reply, dict):
            reply = json.dumps(reply)
        message = reply if isinstance(reply, AIMessage) else AIMessage(reply)
        tools, choice = body.get("tools") or [], body.get("tool_choice")
        if tools and choice not in (None, "auto", "none") and not message.tool_calls:
            chosen = choice["function"]["name"] if isinstance(choice, dict) else str(choice)
            message = as_forced_call(message, tools, chosen, turn)
        return message

    def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """The vectors of `input`, as floats or as base64 of little-endian float32.

        Raises:
            ValueError: the input is not text (token ids, for example).
        """
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("input must be text or a list of texts")
        hashing = HashingEmbeddings(body.get("dimensions") or self._dimensions)
        vectors = (self._embeddings or hashing).embed_documents(texts)
        encode: Callable[[list[float]], Any] = _base64 if body.get("encoding_format") == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(vectors)
        ]
        used = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"object": "list", "data": data, "model": body.get("model", ""), "usage": usage}

    def take_fault(self) -> Fault | None:
        with self._lock:
            return self.faults.pop(0) if self.faults else None

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server."""
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: OpenAIServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _owner(self) -> OpenAIServer:
        return cast(_Server, self.server).owner

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self._faulty():
            return
        if self.path == "/v1/models":
            models = [{"id": name, "object": "model", "owned_by": "test"} for name in ("chat", "embedding")]
            self._send(200, {"object": "list", "data": models})
        else:
            self._fail(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError as error:
            return self._fail(400, str(error))
        path, key = self.path.removeprefix("/v1"), self.headers.get("Authorization", "")
        self._owner.requests.append(Request(path, body, key))
        if self._faulty():
            return None
        try:
            if path == "/chat/completions":
                return self._chat(body)
            if path == "/embeddings":
                return self._send(200, self._owner.embed(body))
        except Exception as error:  # noqa: BLE001 - what a test's own function raises goes to its client
            return self._fail(400 if isinstance(error, ValueError) else 500, str(error))
        return self._fail(404, f"no such path: {self.path}")

    def _chat(self, body: dict[str, Any]) -> None:
        message = self._owner.chat(body)
        usage = _usage(body, message)
        if not body.get("stream"):
            choice = {"index": 0, "message": _wire(message), "finish_reason": _finish(message)}
            return self._send(200, _completion("chat.completion", body, choices=[choice], usage=usage))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for delta, finish in _deltas(message):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            self._event(_completion("chat.completion.chunk", body, choices=[choice]))
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event(_completion("chat.completion.chunk", body, choices=[], usage=usage))
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        return None

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        self.wfile.flush()

    def _faulty(self) -> bool:
        fault = self._owner.take_fault()
        if fault is None:
            return False
        if fault.hang:
            self._owner.wait(fault.hang)
        self._send_text(fault.status, fault.body, fault.headers)
        return True

    def _fail(self, status: int, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": "test_server"}})

    def _send(self, status: int, data: dict[str, Any]) -> None:
        self._send_text(status, json.dumps(data), {})

    def _send_text(self, status: int, text: str, headers: dict[str, str]) -> None:
        content = text.encode()
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client has given up, as one does on a server that hangs


def _completion(kind: str, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made = {"id": "chatcmpl-test", "object": kind, "created": int(time.time())}
    return {**made, "model": body.get("model", ""), **fields}


def _wire(message: AIMessage) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": "assistant", "content": message.text or None}
    if message.tool_calls:
        wire["tool_calls"] = _calls(message)
    return wire


def _calls(message: AIMessage) -> list[dict[str, Any]]:
    return [
        {
            "id": call["id"] or f"call_{index}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["args"])},
        }
        for index, call in enumerate(message.tool_calls)
    ]


def _deltas(message: AIMessage) -> Iterator[tuple[dict[str, Any], str | None]]:
    yield {"role": "assistant", "content": ""}, None
    for word in re.findall(r"\s*\S+|\s+", message.text):
        yield {"content": word}, None
    for index, call in enumerate(_calls(message)):
        yield {"tool_calls": [{"index": index, **call}]}, None
    yield {}, _finish(message)


def _finish(message: AIMessage) -> str:
    return "tool_calls" if message.tool_calls else "stop"


def _usage(body: dict[str, Any], message: AIMessage) -> dict[str, int]:
    """Words, for want of a tokenizer."""
    asked = sum(len(str(turn.get("content") or "").split()) for turn in body.get("messages", []))
    said = len(message.text.split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
