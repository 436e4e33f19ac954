"""The routes that show what can be picked, before anything runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ...ziplora_core.comfy_adapter.apply.lora_glance import lora_glance, lora_preview, other_bases
from ...ziplora_core.comfy_adapter.data.folder_glance import folder_glance, folder_picture

_AGE = {"Cache-Control": "private, max-age=3600"}
"""The addresses of pictures change with their files."""


def register_glance_routes(routes: web.RouteTableDef) -> None:
    """Add the routes, which read files off the event loop.

    - `GET /ziplora/lora?name=`: size, base model, rank and trigger words of a LoRA file
    - `GET /ziplora/lora/preview?name=`: the picture beside it, as JPEG
    - `GET /ziplora/loras?start=`: the files that belong to another base model than SDXL, from that
      place of the list on, and where to go on
    - `GET /ziplora/folder?name=`: the pictures and captions of a folder of training images
    - `GET /ziplora/folder/picture?name=&picture=`: one of them, as JPEG

    Names are those that the pickers list. Of any other, and of what cannot be read, the answer says
    why; there is no picture of it (404).
    """

    @routes.get("/ziplora/lora")
    async def lora(request: web.Request) -> web.Response:
        return web.json_response(await _read(lora_glance, request, "name"))

    @routes.get("/ziplora/lora/preview")
    async def preview(request: web.Request) -> web.Response:
        return _picture(await _read(lora_preview, request, "name"))

    @routes.get("/ziplora/loras")
    async def others(request: web.Request) -> web.Response:
        start = request.query.get("start", "")
        start = int(start) if re.fullmatch(r"[0-9]{1,9}", start) else 0
        return web.json_response(await asyncio.to_thread(other_bases, start))

    @routes.get("/ziplora/folder")
    async def folder(request: web.Request) -> web.Response:
        return web.json_response(await _read(folder_glance, request, "name"))

    @routes.get("/ziplora/folder/picture")
    async def picture(request: web.Request) -> web.Response:
        return _picture(await _read(folder_picture, request, "name", "picture"))


async def _read(read: Callable[..., Any], request: web.Request, *names: str) -> Any:
    return await asyncio.to_thread(read, *(request.query.get(name, "") for name in names))


def _picture(found: bytes | None) -> web.Response:
    if found is None:
        return web.json_response({"error": "no such picture"}, status=404)
    return web.Response(body=found, content_type="image/jpeg", headers=_AGE)
