"""Packs to log-probs: the causal LM, its attention over packs, and the checks before step 1.

    source, load, weights, tokenizer    a complete checkpoint, or an error
    adapters, lora, quantized, float32  adapters, and bases held in fewer bits
    stored, sharded                     rows of the files, read by the process that has them
    completions               public: log-probs of given completions
    policy                    the module that accelerate wraps: `forward(pack)` → log-probs
    attention, attention_cpu, attention_cuda, unshared    which token attends to which
    heads, logps                        hidden states → log-probs, never a `[tokens, vocab]` tensor
    moe, dropout                        options of a config
    cpu_products, cpu_layers, cpu_memory    products by oneDNN, and memory that is kept
    fingerprints, self_check, kernel_check, spot_check, length_limits    checks before step 1

In: packs of `dpo.data`. Out: per-token log-probs in nats, float32.
"""
