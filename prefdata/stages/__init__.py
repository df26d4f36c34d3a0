"""The road of a row, in order: each stage is a pure function that an engine can run anywhere.

    scan        files → chunks → records that are checked and distinct, and the counts of the rest
      chunk       bytes of one chunk → records, refused rows, sketches (in a worker)
      filter      keys of all records → which are kept, and why the others are not
      set_checks  the kept records → findings about the set as a whole
      split       records → train, test and other splits
    plan        records → shard tasks, and the identity of the build
    shard       one task → one token shard and one text shard (in a worker)
    dropped     what was not kept → rejected/ and duplicates.parquet
    counts, statistics, measures → numbers of the report
    summarize   all results → report and manifest
    output      where the build goes, and what may stand there

In: a config and files. Out: sealed files, a report and a manifest. `building.py` calls them.
"""
