"""The pack's routes in an application of their own, asked in this process."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from functools import cache
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sandbox.paths import ROOT, use_comfyui

_ENCODED = {"Content-Type": "application/json"}


@cache
def _client() -> tuple[asyncio.AbstractEventLoop, TestClient[Any, Any]]:
    """Load the pack as ComfyUI does, and serve its routes."""
    use_comfyui()
    spec = importlib.util.spec_from_file_location("ziplora", ROOT / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["ziplora"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    routes = web.RouteTableDef()
    module.register_routes(routes)
    application = web.Application(client_max_size=1 << 24)
    application.add_routes(routes)
    loop = asyncio.new_event_loop()
    client = TestClient(TestServer(application, loop=loop), loop=loop)
    loop.run_until_complete(client.start_server())
    return loop, client


def statuses_of(head: bytes, body: bytes) -> list[int]:
    """Send one request of each kind; return their statuses.

    Args:
        head: the content type.
        body: the body of the POSTs; the GETs ask for its text.
    """
    loop, client = _client()
    text = "".join(letter for letter in head.decode("latin-1") if " " <= letter <= "~")
    headers = {"Content-Type": text} if text.strip() else _ENCODED
    asked = body.decode("utf-8", "ignore")[:200]

    async def ask() -> list[int]:
        statuses: list[int] = []
        for path in ("/ziplora/stop", "/ziplora/save"):
            async with client.post(path, data=body, headers=headers) as answer:
                statuses.append(answer.status)
        for path, query in (
            ("/ziplora/training", {}),
            ("/ziplora/training/3", {"workflow": asked}),
            (f"/ziplora/training/3/samples/{'9' * (len(body) % 7000)}", {}),
            ("/ziplora/slider", {"name": asked}),
            ("/ziplora/slider", {"name": f"{asked}.safetensors"}),
        ):
            async with client.get(path, params=query) as answer:
                statuses.append(answer.status)
        return statuses

    return loop.run_until_complete(ask())
