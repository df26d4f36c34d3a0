"""Data types of one preference, shared by all stages.

    schema.py       a record's fields, for Arrow and as JSON; columns of rejected rows
    keys.py         ids and locations of records, narrow enough for millions
    findings.py     count and first locations of each code
    split_names.py  names of splits, in files, directories and rows
    text.py         records as the readable rows of `text/`
    rejected.py     rejected pairs as rows of `rejected/`
    secrets.py      secrets and personal data in texts; quotations of texts without them

In: only Arrow and polars. Out: names and types that all packages above share.
"""
