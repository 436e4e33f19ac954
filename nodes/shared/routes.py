"""The pack's HTTP routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import web

from ...ziplora_core.comfy_adapter.apply.slider_file import slider_file
from ...ziplora_core.training import registry
from ...ziplora_core.training.run_history import summary
from .glance_routes import register_glance_routes

_DIGITS = 12
"""Digits of the longest training; int() refuses 4,300."""
_EXPECTED = "expected a JSON object in UTF-8, with node_id and workflow as texts or numbers"


def register_routes(routes: web.RouteTableDef) -> None:
    """Add the routes that show and control trainings and describe files.

    - `POST /ziplora/stop`: stop, and keep what was learned
    - `POST /ziplora/save`: save the current LoRA, and continue
    - `GET /ziplora/training`: list the known runs
    - `GET /ziplora/training/{node_id}`: the whole history of a node's last run; `?workflow=`
    - `GET /ziplora/training/{node_id}/samples/{step}`: its sample images, as JPEG
    - `GET /ziplora/slider?name=`: the range that the slider in a file was trained for

    The body of both POSTs is `{"node_id": "12"}` for one node, with `"workflow": id` to select
    the node of one workflow, or `{}` for all running trainings. The answer is
    `{"stopped": [ids]}` or `{"saving": [ids]}`, or 404 if no such run is in progress.
    """
    register_glance_routes(routes)

    @routes.post("/ziplora/stop")
    async def stop(request: web.Request) -> web.Response:
        return await _told(request, "stopped", registry.request_stop)

    @routes.post("/ziplora/save")
    async def save(request: web.Request) -> web.Response:
        return await _told(request, "saving", registry.request_save)

    @routes.get("/ziplora/training")
    async def known(_request: web.Request) -> web.Response:
        return web.json_response({"runs": summary(registry.known())})

    @routes.get("/ziplora/training/{node_id}")
    async def history(request: web.Request) -> web.Response:
        run = _run(request)
        if run is None:
            return web.json_response({"error": "no run of this node is known"}, status=404)
        return web.json_response(run.snapshot())

    @routes.get("/ziplora/training/{node_id}/samples/{step:\\d+}")
    async def sample(request: web.Request) -> web.Response:
        run, step = _run(request), request.match_info["step"]
        strip = run.strips().get(int(step)) if run and len(step) <= _DIGITS else None
        if strip is None:
            return web.json_response({"error": "no such picture is kept"}, status=404)
        return web.Response(body=strip.jpeg, content_type="image/jpeg")

    @routes.get("/ziplora/slider")
    async def slider(request: web.Request) -> web.Response:
        said = await asyncio.to_thread(slider_file, request.query.get("name", ""))
        return web.json_response(said)


def _run(request: web.Request) -> registry.Run | None:
    return registry.find(request.match_info["node_id"], request.query.get("workflow"))


def _id(value: object) -> str | None:
    """Return an id as text; raises TypeError where it is neither a text nor a number."""
    if not isinstance(value, str | int | None):
        raise TypeError(f"an id that is a {type(value).__name__}")
    return None if value is None else str(value)


async def _told(
    request: web.Request, name: str, tell: Callable[[str | None, str | None], list[str]]
) -> web.Response:
    try:
        # Not `request.json()`: its reading of a long Content-Type takes a second.
        body = json.loads(await request.read() or b"{}")
        asked = [_id(body.get(name)) for name in ("node_id", "workflow")]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return web.json_response({"error": _EXPECTED}, status=400)
    told = tell(*asked)
    return web.json_response({name: told}, status=200 if told else 404)
