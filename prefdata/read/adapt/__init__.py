"""From JSON objects to records: a layout applied to rows.

    adapter     a compiled layout: one object in, pairs or a code out
    prompt, sides, messages, content_parts, fields      the parts of a row
    candidates, ranking, trees, gather      several answers or rows to pairs
    implicit, named, spellings, repeated, widened, …    habits of files that no layout declares
    collect, columns, ids                               records to Arrow tables, with their ids

Input: objects of `files/`. Output: tables of `records/`.
"""
