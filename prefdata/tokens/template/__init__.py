"""Chat templates run on rows: sandboxed, limited in time and memory, traced if that is sound.

In: messages and a template. Out: the texts of prompt, chosen and rejected.
"""
