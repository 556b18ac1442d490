"""The server as an ASGI application, for uvicorn, hypercorn, or a mount in FastAPI or Starlette (docs/asgi.md).

codec = create_app(Settings(model="nano"))
host = FastAPI(lifespan=codec.lifespan)
host.mount("/codec", codec)
"""

from neucodec_streaming.server.asgi.application import Application, create_app

__all__ = ["Application", "create_app"]
