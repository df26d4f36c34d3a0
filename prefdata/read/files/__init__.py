"""Bytes to numbered JSON objects, in bounded memory, whatever the format.

    source → unpack → formats → chunks → jsonl | json_array | csv | tabular → parse_json

In: paths. Out: for each row its number, its bytes, and an object or the code of what is wrong with
it. Nothing here knows what a preference is.
"""
