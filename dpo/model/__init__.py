"""Packs to log-probs: the causal LM, its attention over packs, and the checks before it is trusted.

    load, weights, tokenizer    a checkpoint, whole or not at all
    policy                      the module: `forward(pack)` → log-probs; what accelerate wraps
    attention, attention_cpu, attention_cuda, masks, unshared    who attends to whom
    logps                       hidden states → log-probs, never a `[tokens, vocab]` tensor
    lora, moe, dropout, cpu_memory                               what a config adds
    fingerprints, self_check, spot_check, length_limits          before step 1

In: packs of `dpo.data`. Out: per-token log-probs in nats, float32.
"""
