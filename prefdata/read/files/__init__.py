"""Bytes to numbered JSON objects, for every input format, in bounded memory.

    source → unpack → formats → chunks → jsonl | json_array | csv | tabular → parse_json

In: paths. Out: for each row its number, its bytes, and an object or an error code. Nothing here
depends on what a preference is.
"""
