"""The asyncio shell around the engine: `neucodec-server`. Importing it has no effect and loads no torch."""
