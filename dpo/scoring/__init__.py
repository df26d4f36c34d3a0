"""`dpo-score`: implicit rewards β·(log π − log π_ref) of any pairs, and suspect labels.

In: a build or files, a policy and a reference. Out: scores, suspects, a report.
"""
