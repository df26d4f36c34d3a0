"""Engines that run stages. A stage is a picklable function from its item to its result."""

from typing import Literal

from prefdata.engine.local import Done, Workers, choose_workers
from prefdata.engine.ray import RayWorkers

__all__ = ["Done", "Engine", "EngineName", "Workers", "choose_workers", "open_engine"]

Engine = Workers | RayWorkers
EngineName = Literal["local", "ray"]


def open_engine(name: EngineName, *, workers: int | None, total_bytes: int) -> Engine:
    """Return the processes of a Ray cluster, or local ones in a number that fits the inputs."""
    if name == "ray":
        return RayWorkers(workers)
    return Workers(choose_workers(workers, total_bytes))
