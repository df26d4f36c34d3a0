"""Checks of the whole set: each is a function of one narrow frame without texts.

Input: a row of features for each kept record. Output: findings about the set.
"""
