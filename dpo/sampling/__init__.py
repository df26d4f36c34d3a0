"""`dpo-sample`: K completions of each prompt, ranked by a scorer.

In: prompts and a model. Out: a file of ranked completions that `prefdata build` reads.
"""
