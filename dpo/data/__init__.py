"""Shards to packs: the pairs of step n, in packs without padding.

    pairs            rows of a split, mapped from the shards
    reference_store  stored reference log-probs; reference_folder: where; progress: resuming
    sampler          the pairs of step n, in O(1) memory, and their weights
    packing          pairs → packs within a budget of tokens
    token_weights    the weight of each token

In: a build and its reference. Out: packs.
"""
