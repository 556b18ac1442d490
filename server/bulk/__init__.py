"""Whole recordings to tokens and back, many of them: `neucodec-server encode-files` and `decode-files`, and Ray Data.

recordings -> coding (in worker processes, or Ray's actors) -> table, and back. There is no session and no engine: a
recording goes through `Codec.encode` as a whole. The table needs the extra `bulk`.
"""
