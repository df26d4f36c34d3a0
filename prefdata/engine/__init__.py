"""Where stages run. A stage is a picklable function from its item to its result."""

from typing import Literal

from prefdata.engine.local import Done, Workers, choose_workers
from prefdata.engine.ray import RayWorkers

__all__ = ["Done", "Engine", "EngineName", "Workers", "choose_workers", "open_engine"]

Engine = Workers | RayWorkers
EngineName = Literal["local", "ray"]


def open_engine(name: EngineName, *, workers: int | None, total_bytes: int) -> Engine:
    """Processes of this machine, as many as the inputs are worth, or those of a Ray cluster."""
    if name == "ray":
        return RayWorkers(workers)
    return Workers(choose_workers(workers, total_bytes))
