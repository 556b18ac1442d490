"""The wire protocol `neucodec.v1` without I/O: `messages`, `query` and `session`. Standard library only."""
