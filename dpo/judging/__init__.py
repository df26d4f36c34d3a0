"""`dpo-judge`: verdicts on completions by a server's model or a scorer, and how they agree.

In: candidates or pairs, a judge, a template. Out: a file of verdicts that `prefdata build` reads.
"""
