"""What one preference is, as every stage sees it.

    schema.py       columns of kept and of refused rows, as Arrow types
    model.py        the same record as JSON, for readers of the format
    keys.py         ids and places of records, narrow enough for millions
    findings.py     how often each code was met, and where first
    split_names.py  names of splits, in files, directories and rows
    text.py         records as the readable rows of `text/`
    rejected.py     refused pairs as rows of `rejected/`

In: nothing but Arrow and polars. Out: names and types that all rooms above share.
"""
