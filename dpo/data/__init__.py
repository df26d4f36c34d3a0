"""Shards to packs: the pairs of step n, in packs without padding.

    shards           shards of a split, hashed and mapped when a row is needed
    pairs            rows of a split; lengths: numbers of rows by length; groups: pairs of a prompt
    reference_store  stored reference log-probs; reference_folder: where; progress: resuming
    sampler          the pairs of step n, in O(1) memory, and their weights
    packing          pairs → packs within a budget of tokens
    token_weights    the weight of each token

In: a build and its reference. Out: packs.
"""
