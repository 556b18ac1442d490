"""The asyncio shell around the engine: `neucodec-server`.

    app = App(Settings(model="nano", port=8765))
    await app.start(); await app.loaded(); ...; await app.stop()

The names of `__all__` load on first use: importing this package has no effect and loads no torch.
"""

from typing import TYPE_CHECKING

from neucodec_streaming.lazy import lazy_names

if TYPE_CHECKING:
    from neucodec_streaming.server.app import App
    from neucodec_streaming.server.settings.fields import Settings

__all__ = ["App", "Settings"]
_MODULES = {
    "neucodec_streaming.server.app": ("App",),
    "neucodec_streaming.server.settings.fields": ("Settings",),
}
__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return list(__all__)
