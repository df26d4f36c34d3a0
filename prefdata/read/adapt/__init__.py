"""JSON objects to records: what a layout says of columns, applied to rows.

    adapter     a compiled layout: one object in, pairs or a code out
    prompt, sides, messages, content_parts, fields      parts of a row
    candidates, ranking, pairing, trees, gather         several answers or rows to pairs
    implicit, named, spellings, repeated, widened, …    what files do that their layout does not say
    collect, columns, ids                               records to Arrow tables, with their ids

In: objects of `files/`. Out: tables of `records/`.
"""
