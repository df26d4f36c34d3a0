"""The run: read loop.py from top to bottom; it calls everything else.

    loop        packs → forward → loss → backward → clip → step → log
      setup       everything a run needs, opened and checked before step 1
      step        one optimizer step of exactly `global_batch_size` units
      evaluate    forward and loss without gradients, over a split
      best        the best evaluation, and when to stop early
    objective, optimizer, rounding, metrics, mfu    used and reported by a step
    log, trackers, samples                          what a run writes while it trains
    memory_check, distributed, signals              devices and processes
    checkpoint, deciding, run_folder                files on disk during the run, and whose they are
    export                                          a checkpoint as a model, after the run

In: a TrainConfig. Out: a trained policy and metrics, which `dpo.artifacts` writes.
"""
