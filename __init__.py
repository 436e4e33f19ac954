"""ZipLoRA for ComfyUI: my subject in my style."""

from __future__ import annotations

import asyncio

from comfy_api.latest import ComfyExtension, io  # noqa: TID251
from server import PromptServer  # noqa: TID251
from typing_extensions import override

from .nodes import NODES
from .nodes.shared.routes import register_routes
from .ziplora_core.comfy_adapter.housekeeping import remove_temporary_files

WEB_DIRECTORY = "./js"


class ZipLoRAExtension(ComfyExtension):
    @override
    async def on_load(self) -> None:
        register_routes(PromptServer.instance.routes)
        await asyncio.to_thread(remove_temporary_files)

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ZipLoRAExtension:
    return ZipLoRAExtension()
