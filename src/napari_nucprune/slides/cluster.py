"""Runs a graph of small tasks through dask: in threads, in local processes, on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ..doors import ShouldStop, never
from ..errors import Cancelled, EnvironmentStopped, InputError, NucpruneError
from .image import first_line
from .stages import Hooks

#: Seconds between two looks at ``should_stop``, and that a scheduler has to answer.
_LOOK, _ANSWER = 0.2, 10
#: Seconds that a scheduler may be without workers.
_IDLE = 60


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes
    ----------
    threads
        In this process.
    workers
        Processes on this computer instead, one thread each.
    scheduler
        Address of a dask scheduler instead, whose workers see the same files.
    """

    threads: int = 1
    workers: int | None = None
    scheduler: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the work is done by threads of this process."""
        return self.workers is None and self.scheduler is None


#: Runs delayed tasks; calls back with each result, in this process's thread.
Runner = Callable[[Sequence[Any], Callable[[Any], None]], None]


@contextmanager
def crew_at_work(crew: Crew, hooks: Hooks, should_stop: ShouldStop = never) -> Iterator[Runner]:
    """Give what runs graphs; its processes end with the block.

    Raises
    ------
    InputError
        Where dask.distributed is missing or no scheduler answers.
    EnvironmentStopped
        Where workers were lost again and again; all that is finished stays.
    Cancelled
        Soon after ``should_stop`` says so.
    """
    with ExitStack() as stack:
        if crew.is_local:
            pool = stack.enter_context(ThreadPoolExecutor(crew.threads, "nucprune-slide"))
            yield lambda tasks, result: _in_threads(tasks, result, pool, crew, hooks)
        else:
            client = _client(stack, crew)
            yield lambda tasks, result: _on_cluster(client, tasks, result, should_stop, hooks)


def _in_threads(
    tasks: Sequence[Any],
    result: Callable[[Any], None],
    pool: ThreadPoolExecutor,
    crew: Crew,
    hooks: Hooks,
) -> None:
    import dask

    try:
        found = dask.compute(
            *tasks,
            scheduler="threads",
            pool=pool,
            num_workers=crew.threads,
            optimize_graph=False,
        )
    except BaseException:
        hooks.stop.set()  # the other threads finish their core, then the error goes up
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    for value in found:
        result(value)


def _client(stack: ExitStack, crew: Crew) -> Any:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(
            "--workers and --scheduler want dask.distributed; install it with: "
            "pip install 'napari-nucprune[cluster]'."
        ) from error
    if crew.scheduler is None:
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=crew.workers, threads_per_worker=1, processes=True, dashboard_address=None
            )
        )
        return stack.enter_context(Client(cluster))
    try:
        return stack.enter_context(Client(crew.scheduler, timeout=_ANSWER))
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"No dask scheduler answers at {crew.scheduler}; start one with `dask scheduler`, "
            "and give the address that it prints."
        ) from error


def _on_cluster(
    client: Any,
    tasks: Sequence[Any],
    result: Callable[[Any], None],
    should_stop: ShouldStop,
    hooks: Hooks,
) -> None:
    from distributed import wait
    from distributed.scheduler import KilledWorker

    waiting = set(client.compute(list(tasks), optimize_graph=False))
    worked = looked = time.monotonic()
    try:
        while waiting:
            if should_stop():
                raise Cancelled("Cancelled.")
            now = time.monotonic()
            if now - looked > _ANSWER / 2:
                looked = now
                if client.scheduler_info(n_workers=-1)["workers"]:
                    worked = now
                elif now - worked > _IDLE:
                    raise EnvironmentStopped(
                        f"The scheduler has had no worker for {_IDLE} s; start some with "
                        "`dask worker` and run the same command again."
                    )
            try:
                done, waiting = wait(waiting, timeout=_LOOK, return_when="FIRST_COMPLETED")
            except TimeoutError:
                continue
            for future in done:
                result(future.result())
    except KilledWorker as error:
        raise EnvironmentStopped(
            "Workers died again and again at the same place (is their memory too small?); what is "
            "finished stays: run the same command again."
        ) from error
    except (OSError, RuntimeError, CancelledError) as error:
        if isinstance(error, NucpruneError):
            raise
        why = first_line(error).rstrip(":")[:80]
        raise EnvironmentStopped(
            f"The cluster was lost ({why}); what is finished stays: run the same command again."
        ) from error
    except BaseException:
        hooks.stop.set()  # what this process writes meanwhile
        raise
    finally:
        client.cancel(list(waiting))
