"""Checks of the whole set: each a function of one narrow frame, which has no texts.

In: a row of features for each kept record. Out: findings about the set.
"""
