"""Shards to packs: which pairs make step n, and how they lie in packs without padding.

    pairs            rows of a split, mapped from the shards
    reference_store  stored reference log-probs; reference_folder, progress: where, and how far
    permutation      which pair is at position n, in O(1) memory
    sampler          which pairs make a step, and their weights
    packing          pairs → packs of at most so many tokens
    token_weights    how much each token counts

In: a build and its reference. Out: packs.
"""
