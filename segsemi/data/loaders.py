"""The data loader: batches made by other processes while the network computes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import forkserver, resource_tracker

import cv2
import torch
from torch.utils.data import DataLoader

from segsemi.data.batches import Part, StepBatches


def batch_loader(
    batches: StepBatches, *, start: int, workers: int, device: torch.device | None = None
) -> DataLoader[list[Part]]:
    """The batches from step `start` on, in order, made by `workers` processes (0: in this one), ready for `device`."""
    on_gpu = device is not None and device.type == "cuda"
    method = None  # the platform's own
    if workers and on_gpu and batches.processes > 1:  # NCCL, which has started by now, does not survive a fork
        method = "forkserver"
        _start_forkserver()
    elif workers and sys.platform == "linux":
        method = "fork"
        if any(group.strong_ops for group in batches.groups):
            import segsemi.augment.strong  # noqa: F401  # once, before the workers are forked: imgaug takes half a second
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        prefetch_factor=2 if workers else None,
        pin_memory=on_gpu,
        multiprocessing_context=method,
    )


STOPS = (signal.SIGINT, signal.SIGTERM)  # they may reach all processes of a group; the main process ends its workers


def _start_forkserver() -> None:
    """Start the process that forks loader processes where this one cannot; in it, and in these while they start, stops wait."""
    multiprocessing.set_forkserver_preload(["segsemi.data.loaders", "segsemi.augment.strong"])
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
    cv2.setNumThreads(0)  # workers beside torch's threads: more threads than cores slow all of them down
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """The process that asked for this one may be killed; a forkserver, from which it was forked, would live on with it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
