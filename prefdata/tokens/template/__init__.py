"""Chat templates run on rows: sandboxed, limited in time and memory, traced where that is sound.

In: messages and a template. Out: the texts of prompt, chosen and rejected.
"""
