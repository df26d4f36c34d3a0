"""The run: read loop.py from top to bottom; it calls everything else.

    loop        packs → forward → loss → backward → clip → step → log
      setup       everything a run needs, opened and checked before step 1
      step        one optimizer step of exactly `global_batch_size` units
      evaluate    forward and loss without gradients, over a split
    objective, optimizer, metrics, mfu, log     used and reported by a step
    memory_check, distributed, signals          devices and processes
    checkpoint, run_folder                      files on disk during the run

In: a TrainConfig. Out: a trained policy and metrics, which `dpo.artifacts` writes.
"""
