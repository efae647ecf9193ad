"""Data loaders: other processes read and augment while the network computes."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker
from typing import TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from segsemi.runtime.distributed import Runtime

T = TypeVar("T")
STOPS = (signal.SIGINT, signal.SIGTERM)  # they may reach all processes of a group; the main process ends its workers


def load_items(dataset: Dataset[T] | Sequence[T], indices: Sequence[int], runtime: Runtime) -> DataLoader[T]:
    """Return a loader of dataset[index] for all `indices`, in order, made by runtime.loader_processes (0: this one)."""
    workers, on_gpu = runtime.loader_processes, runtime.device.type == "cuda"
    method = None  # the platform's own
    if workers and on_gpu and runtime.count > 1:  # NCCL, which has started by now, does not survive a fork
        method = "forkserver"
        _start_forkserver()
    elif workers and sys.platform == "linux":
        method = "fork"
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # any sequence serves
        batch_size=None,
        collate_fn=_as_it_is,  # else torch turns arrays into tensors
        sampler=indices,
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        prefetch_factor=2 if workers else None,
        pin_memory=on_gpu,
        multiprocessing_context=method,
    )


def _as_it_is(item: T) -> T:
    return item


def _start_forkserver() -> None:
    """Start the process that forks loader processes; stops are blocked in it, and in these while they start."""
    multiprocessing.set_forkserver_preload(["segsemi.data.batches"])
    resource_tracker.ensure_running()  # first, as it ends with both signals let through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # which processes inherit
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker: int) -> None:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(0)  # with torch's threads there would be more threads than cores
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Exit with the training process: a worker forked by the forkserver would outlive it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
