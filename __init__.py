"""ZipLoRA for ComfyUI: my subject in my style."""

from __future__ import annotations

import asyncio

from .ziplora_core.comfy_adapter.requirement import comfyui_version, require_comfyui

require_comfyui(comfyui_version())  # before anything is imported that an older ComfyUI may lack

from comfy_api.latest import ComfyExtension, io  # noqa: E402, TID251
from server import PromptServer  # noqa: E402, TID251
from typing_extensions import override  # noqa: E402

from .nodes import NODES  # noqa: E402
from .nodes.shared.past_routes import register_past_routes  # noqa: E402
from .nodes.shared.routes import register_routes  # noqa: E402
from .ziplora_core.comfy_adapter.housekeeping import remove_temporary_files  # noqa: E402

WEB_DIRECTORY = "./js"


class ZipLoRAExtension(ComfyExtension):
    @override
    async def on_load(self) -> None:
        register_routes(PromptServer.instance.routes)
        register_past_routes(PromptServer.instance.routes)
        await asyncio.to_thread(remove_temporary_files)

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> ZipLoRAExtension:
    return ZipLoRAExtension()
