"""A real ComfyUI server for tests, started by its command line and used over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import websocket

from .link import fresh_base
from .paths import COMFYUI, PYTHON, device_environment, device_options
from .result import Result

__all__ = ["ComfyServer", "PromptRejected", "Result", "ServerError", "fresh_base"]

Json = Any
FEATURES = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
"""The frontend's first message: with it, previews name their node."""
PATIENCE = float(os.environ.get("PATIENCE", "1"))
"""A factor on the time that a server has to start, and a prompt to end, on a busy machine."""
IMPORT_FAILURE = re.compile(r"IMPORT FAILED|Cannot import")
FINAL_EVENTS = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


class ServerError(RuntimeError):
    """The server did not start, or stopped; the message has the end of its log."""


class PromptRejected(ValueError):  # noqa: N818 (the server's answer, not a fault)
    """The server refused a prompt or another request."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"HTTP {status}: {json.dumps(body, indent=1)}")
        self.status = status
        self.body = body


class ComfyServer:
    """Runs ComfyUI's main.py on DEVICE with a base directory: `with ComfyServer(base) as server:`.

    Args:
        base: ComfyUI's base directory.
        port: None chooses a free one.
        arguments: further command-line arguments.
        force_float32: on a card, compute in float32 instead of the dtype that ComfyUI chooses.
    """

    def __init__(
        self, base: Path, port: int | None = None, *arguments: str, force_float32: bool = True
    ) -> None:
        self.base = base
        self.output = base / "output"
        self.models = base / "models"
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client_id = uuid.uuid4().hex
        self._arguments, self._force_float32 = arguments, force_float32
        self._log_path = base / f"server-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        """The command line that starts the server."""
        options = f"--database-url sqlite:///:memory: --disable-api-nodes --port {self.port}"
        command = [PYTHON, COMFYUI / "main.py", "--base-directory", self.base, *options.split()]
        device = device_options(self._force_float32)
        return [str(part) for part in (*command, *device, *self._arguments)]

    def __enter__(self) -> ComfyServer:
        with self._log_path.open("wb") as log:
            self._process = self.start(log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """Start the process; its output goes to `log`, or to this process's own output."""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            **device_environment(),
        }
        stderr = subprocess.STDOUT if log else None
        return subprocess.Popen(self.command(), stdout=log, stderr=stderr, env=environment)

    def stop(self) -> None:
        """Terminate the process, and kill it if it still runs after ten seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Kill the process, as in a crash."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def get(self, path: str) -> Json:
        """GET a path; return parsed JSON, or bytes for anything else."""
        return self._request(path, None)

    def post(self, path: str, json: Json) -> Json:
        """POST JSON to a path."""
        return self._request(path, json)

    def object_info(self) -> dict[str, Json]:
        """Describe every node class: inputs, outputs, categories."""
        return self.get("/object_info")

    def queue(
        self, prompt: dict[str, Json], partial: list[str] | None = None, workflow: Json = None
    ) -> str:
        """Queue an API-format prompt, or only its `partial` output nodes; return its id.

        Args:
            workflow: the workflow that it was made of, which the page sends along.
        """
        message: dict[str, Json] = {"prompt": prompt, "client_id": self.client_id}
        if workflow is not None:
            message["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        if partial is not None:
            message["partial_execution_targets"] = partial
        return self.post("/prompt", message)["prompt_id"]

    def run(
        self,
        prompt: dict[str, Json],
        partial: list[str] | None = None,
        timeout: float = 300,
        on_event: Callable[[Json], None] | None = None,
        workflow: Json = None,
    ) -> Result:
        """Queue a prompt and wait for its end; `on_event` gets each JSON message at once."""
        url = f"ws://127.0.0.1:{self.port}/ws?clientId={self.client_id}"
        connection = websocket.create_connection(url, timeout=PATIENCE * timeout)
        try:
            connection.send(json.dumps(FEATURES))
            start = time.monotonic()
            result = Result(self.queue(prompt, partial, workflow))
            until = start + PATIENCE * timeout
            self._follow(connection, result, until, on_event or (lambda _: None))
            result.seconds = time.monotonic() - start
        finally:
            connection.close()
        result.outputs = self.history(result.prompt_id).get("outputs", {})
        return result

    def interrupt(self) -> None:
        """Cancel the running prompt."""
        self.post("/interrupt", {})

    def history(self, prompt_id: str) -> dict[str, Json]:
        """Look up a finished prompt; empty until it has finished."""
        return self.get(f"/history/{prompt_id}").get(prompt_id, {})

    def free(self) -> None:
        """Unload the models and drop the cache of executed nodes.

        The request is sent twice: the worker misses one that arrives while it collects garbage.
        """
        for _ in range(2):
            self.post("/free", {"free_memory": True})
            time.sleep(0.25)

    def log(self) -> str:
        """Read everything the server has printed so far."""
        return self._log_path.read_text(errors="replace")

    def _follow(
        self,
        connection: websocket.WebSocket,
        result: Result,
        deadline: float,
        on_event: Callable[[Json], None],
    ) -> None:
        while True:
            try:
                connection.settimeout(max(deadline - time.monotonic(), 0.01))
                message = connection.recv()
            except websocket.WebSocketTimeoutException:
                self.interrupt()
                raise TimeoutError(f"The prompt ran out of time.\n{self._log_tail()}") from None
            except (websocket.WebSocketException, OSError) as error:
                raise ServerError(f"The server went away: {error}.\n{self._log_tail()}") from error
            if isinstance(message, bytes):
                result.previews.append(message)
                continue
            event = json.loads(message)
            data = event["data"]
            if data.get("prompt_id", result.prompt_id) != result.prompt_id:
                continue
            result.events.append(event)
            on_event(event)
            result.status = FINAL_EVENTS.get(event["type"], result.status)
            if event["type"] == "execution_error":
                result.error = data
            if result.status and event["type"] == "executing" and data["node"] is None:
                return  # sent after the history entry was written

    def _wait_until_ready(self, timeout: float = 180) -> None:
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended while starting.\n{self._log_tail()}")
            try:
                self.get("/system_stats")
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
                continue
            if IMPORT_FAILURE.search(self.log()):
                raise ServerError(f"A node pack failed to import.\n{self._log_tail()}")
            return
        raise ServerError(f"ComfyUI did not answer in {timeout:.0f} s.\n{self._log_tail()}")

    def _request(self, path: str, body: Json) -> Json:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, headers={"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60 * PATIENCE) as response:
                return _parsed(response.read())
        except urllib.error.HTTPError as error:
            raise PromptRejected(error.code, _parsed(error.read())) from error

    def _log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log().splitlines()[-lines:])


def _parsed(body: bytes) -> Json:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
