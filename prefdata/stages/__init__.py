"""Stages of a build, in order: each is a pure function that an engine can run anywhere.

    scan        files → chunks → checked, distinct records, and the counts of the rest
      chunk       bytes of one chunk → records, refused rows, sketches (in a worker)
      filter      keys of all records → kept records, and reasons for dropping the others
      set_checks  the kept records → findings about the set as a whole
      split       records → train, test and other splits
    plan        records → shard tasks, and the identity of the build
    shard       one task → one token shard and one text shard (in a worker)
    dropped     dropped rows → rejected/ and duplicates.parquet
    counts, statistics → numbers of the report
    excerpts    the rows that a report names → their text
    summarize   all results → report and manifest
    output      checks and names of the output directory

In: a config and files. Out: sealed files, a report and a manifest. `building.py` calls them.
"""
