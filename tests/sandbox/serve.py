"""Run the sandbox's ComfyUI in the foreground, for use in a browser: `make serve`."""

from __future__ import annotations

import os
import sys

from .paths import BASE
from .server import ComfyServer


def main() -> int:
    server = ComfyServer(BASE, int(os.environ.get("PORT") or 8188))
    print(f"ComfyUI with tiny models: {server.url}  (Ctrl-C ends it)", flush=True)
    process = server.start()
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait(10)
        return 0


if __name__ == "__main__":
    sys.exit(main())
