"""The pack's HTTP routes."""

from __future__ import annotations

from aiohttp import web

from ..ziplora_core import runs


def register_routes(routes: web.RouteTableDef) -> None:
    """Add `POST /ziplora/stop`: stop and keep what was learned.

    Body: `{"node_id": "12"}` for one node, `{}` for all that train. Answers `{"stopped": [ids]}`,
    404 when no such run is going on.
    """

    @routes.post("/ziplora/stop")
    async def stop(request: web.Request) -> web.Response:
        try:
            body = await request.json() if request.can_read_body else {}
            node_id = body.get("node_id")
        except (ValueError, AttributeError):
            return web.json_response({"error": "expected a JSON object"}, status=400)
        told = runs.request_stop(None if node_id is None else str(node_id))
        return web.json_response({"stopped": told}, status=200 if told else 404)
