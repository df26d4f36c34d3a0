"""Outputs of a run: the model, its record and its pages.

    save, like_base, rescore    the model in the form of its base, read back and scored once more
    summary                     run.json, written last
    card, report                README.md and report.html
    hub                         upload in one verified commit

In: a trained policy and its metrics. Out: the files of `out`.
"""
