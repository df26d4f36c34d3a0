"""The run: read loop.py from top to bottom; everything else hangs below it.

    loop        packs → forward → loss → backward → clip → step → log
      setup       what a run needs, opened and checked before step 1
      step        one optimizer step of exactly `global_batch_size` units
      gradients   forward, loss and backward over the packs of a step
      evaluate    the same without gradients
    objective, optimizer, metrics, spikes, mfu, log     what a step uses and reports
    memory_check, distributed, sharding, signals        machines and processes
    checkpoint, run_folder                              what is on disk while it runs

In: a TrainConfig. Out: a trained policy and metrics, which `dpo.artifacts` writes.
"""
