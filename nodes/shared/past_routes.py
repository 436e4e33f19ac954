"""The HTTP routes of the page's list of past trainings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ...ziplora_core.comfy_adapter.folders import checkpoint_root, work_root
from ...ziplora_core.training import registry
from ...ziplora_core.training.about import read_about
from ...ziplora_core.training.history_files import as_csv, as_events
from ...ziplora_core.training.past import delete
from ...ziplora_core.training.past_list import NAME, details, entries, record

_ONE = f"/ziplora/past/{{name:{NAME}}}"
_MISSING = "no such training is kept"


def register_past_routes(routes: web.RouteTableDef) -> None:
    """Add the routes that show, export, continue and delete past trainings.

    - `GET /ziplora/past`: list them, without their losses
    - `GET /ziplora/past/{name}`: one of them, with its losses and settings
    - `GET /ziplora/past/{name}/samples/{step}`: its sample images, as JPEG
    - `GET /ziplora/past/{name}/history.csv`, `…/events`: its losses, for other programs
    - `GET /ziplora/past/{name}/request`: the `prompt` and the `workflow` that were queued
    - `POST /ziplora/past/{name}/continue`: let the same prompt train on; answers as `request` does
      and with the `node_id` that trains and the `step` of its checkpoint, or 409 if it runs already
      or its checkpoint is not kept
    - `DELETE /ziplora/past/{name}`: delete its record and its checkpoint, no LoRA

    All but the first answer 404 if there is none of this name.
    """

    @routes.get("/ziplora/past")
    async def listed(_request: web.Request) -> web.Response:
        return web.json_response({"trainings": await asyncio.to_thread(entries, work_root())})

    @routes.get(_ONE)
    async def one(request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(details, work_root(), _name(request)))

    @routes.get(_ONE + "/samples/{step:\\d{1,12}}")
    async def sample(request: web.Request) -> web.Response:
        kept, step = record(work_root(), _name(request)), int(request.match_info["step"])
        picture = await asyncio.to_thread(kept.picture, step)
        return web.Response(body=picture, content_type="image/jpeg") if picture else _json(None)

    @routes.get(_ONE + "/history.csv")
    async def table(request: web.Request) -> web.Response:
        return await _file(request, as_csv, "text/csv", f"{_name(request)}.csv")

    @routes.get(_ONE + "/events")
    async def events(request: web.Request) -> web.Response:
        name = f"events.out.tfevents.{_name(request)}"
        return await _file(request, as_events, "application/octet-stream", name)

    @routes.get(_ONE + "/request")
    async def queued(request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(record(work_root(), _name(request)).request))

    @routes.post(_ONE + "/continue")
    async def go_on(request: web.Request) -> web.Response:
        name = _name(request)
        found = await asyncio.to_thread(details, work_root(), name)
        kept = record(work_root(), name)
        said, asked = await asyncio.to_thread(lambda: (kept.read(), kept.request()))
        if found is None or said is None or asked is None:
            return _json(None)
        if not found["continues"]:
            return web.json_response({"error": "there is nothing to go on from"}, status=409)
        registry.request_continue(said["key"])
        about = await asyncio.to_thread(read_about, checkpoint_root() / name)
        step = about.step if about else 0
        return _json({**asked, "node_id": str(said.get("node_id", "")), "step": step})

    @routes.delete(_ONE)
    async def gone(request: web.Request) -> web.Response:
        name = _name(request)
        if await asyncio.to_thread(details, work_root(), name) is None:
            return _json(None)
        lines = await asyncio.to_thread(delete, work_root(), "named", name)
        left = await asyncio.to_thread(details, work_root(), name)
        return web.json_response({"said": lines}, status=200 if left is None else 409)


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _json(found: dict[str, Any] | None) -> web.Response:
    if found is None:
        return web.json_response({"error": _MISSING}, status=404)
    return web.json_response(found)


async def _file(
    request: web.Request, write: Callable[[Any], str | bytes], kind: str, name: str
) -> web.Response:
    said = await asyncio.to_thread(record(work_root(), _name(request)).read)
    if said is None:
        return _json(None)
    made = await asyncio.to_thread(write, said)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    body = made.encode() if isinstance(made, str) else made
    return web.Response(body=body, content_type=kind, headers=headers)
