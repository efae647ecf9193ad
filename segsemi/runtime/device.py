"""The device, the threads beside it, and the memory allocator under it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import cv2
import torch

from segsemi.core.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto`: a CUDA GPU, else Apple's, else the CPU; any other name as torch knows it.

    Also keeps OpenCV to one thread, since its pool beside torch's slows both down, and, on the CPU, memory for reuse.

    Raises:
        UserError: the named device is not there.
    """
    cv2.setNumThreads(0)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"machine.device {name!r} is not available ({reason}); use auto or cpu") from None
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # for pinned memory, and for what asks the current one
    if device.type == "cpu":
        _keep_memory()
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network runs: bfloat16 where it may, or float32 throughout.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that has it.
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def training_format(device: torch.device) -> torch.memory_format:
    """The order of images and weights in which networks train fastest: channels_last.

    Not on Apple's GPUs, where torch's backward passes of batch norm and pooling fail on it or give wrong gradients (pytorch
    issues 175189 and 175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


@contextmanager
def threads_sharing_cores(count: int) -> Iterator[ThreadPoolExecutor]:
    """`count` threads that compute side by side, each with its share of torch's threads."""
    threads = torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # else the first operator of a thread would set torch's default
        torch.set_num_threads(max(1, threads // count))  # OpenMP counts threads for each thread that calls it

    with ThreadPoolExecutor(count, initializer=begin) as pool:
        together = Barrier(count)
        try:
            list(pool.map(lambda _: together.wait(), range(count)))  # all have begun
        except BaseException:
            together.abort()  # those that have begun would wait for ever
            raise
        finally:
            torch.set_num_threads(threads)  # torch's default for new threads again
        yield pool


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block this thread uses one core, and threads that begin in it do.

    For many small operators, each of which would wait for all cores: torch's fused SGD on the CPU, say, is but 1.2 times as
    fast with two, and hundreds of times slower where another process has one of them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _keep_memory() -> None:
    """Let glibc keep freed blocks of up to 64 MiB, as torch does on a GPU; with another C library, nothing.

    Otherwise every tensor of more than a few MiB is mapped and unmapped anew: a training step lost a fifth of its time to
    page faults. Larger blocks would tear holes into the heap.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    if mallopt(_M_MMAP_THRESHOLD, 64 * 2**20) or mallopt(_M_MMAP_THRESHOLD, 32 * 2**20):  # older ones stop at 32 MiB
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)  # the thread of the backward pass reuses what the forward pass freed


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
