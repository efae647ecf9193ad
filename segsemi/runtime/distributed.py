"""The processes of one stage, as torchrun starts them, and the exchange of values between them.

Batch sizes are global and every random choice belongs to an image or a step, so the number of processes changes only which
random numbers dropout and mixing draw. Processes on several machines need one file system for the repository.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from segsemi.core.config import MachineParams
from segsemi.core.errors import UserError
from segsemi.runtime.device import choose_device
from segsemi.runtime.work_folder import work_folder

T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """This process: its device, how it computes, and its place among `count` processes, `here` of them on this machine.

    With one process (the default) the collective methods return what they were given. Collective methods must be called by
    all processes in the same order.

    Attributes:
        precision, workers, cache_mb, log: as in params.yaml, section machine, and of the same names.
    """

    device: torch.device
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    workers: int | Literal["auto"] = 0
    cache_mb: int = 0
    rank: int = 0
    count: int = 1
    here: int = 1
    log: Literal["none", "tensorboard", "dvclive"] = "none"

    @property
    def first(self) -> bool:
        """Return whether this is the process that writes files and reports progress."""
        return self.rank == 0

    @property
    def loader_processes(self) -> int:
        """Return how many processes make batches for this one.

        `auto` is 0 on the CPU, whose cores the network needs. For a GPU it is this process's share of the cores, less one, from
        1 to 8.
        """
        if self.workers != "auto":
            return self.workers
        if self.device.type == "cpu":
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(max(cores // self.here - 1, 1), 8)

    @property
    def loader_cache_mb(self) -> int:
        """Return the memory for decoded images, in MB, of each process that makes batches on this machine."""
        return self.cache_mb // (self.here * max(1, self.loader_processes))

    def autocast(self) -> torch.autocast:
        """Return the context in which networks run: bfloat16 for operations that allow it, or float32."""
        on_gpu = self.device.type == "cuda"
        bf16 = self.precision == "bf16" or (self.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported(False))
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def share_of(self, items: Sequence[T]) -> Sequence[T]:
        """Return every count-th item, beginning with the rank-th."""
        return items[self.rank :: self.count]

    def mean(self, values: Tensor) -> Tensor:
        """Collective: return the mean over the processes, without a gradient."""
        return self.sum(values) / self.count if self.count > 1 else values

    def sum(self, values: Tensor) -> Tensor:
        """Collective: return the sum over the processes, without a gradient."""
        if self.count == 1:
            return values
        values = values.detach().clone()
        dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Collective: return when all processes are here."""
        if self.count > 1:
            dist.barrier()

    def from_first(self, value: T) -> T:
        """Collective: return the value that the first process has."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    @contextmanager
    def work_folder(self, stage: str, params: Any, inputs: Iterable[Path] = ()) -> Iterator[Path]:
        """Collective: `segsemi.runtime.work_folder.work_folder`, locked and removed by the first process, used by all."""
        with ExitStack() as stack:
            folder = stack.enter_context(work_folder(stage, params, inputs)) if self.first else Path()
            folder = self.from_first(folder)
            self.wait()
            if not folder.is_dir():
                raise UserError(
                    f"process {self.rank} does not see {folder}; all need one file system for the repository"
                )
            yield folder
            self.wait()


@contextmanager
def start_runtime(machine: MachineParams) -> Iterator[Runtime]:
    """Within the block this process is one of those that torchrun started; without torchrun it is alone.

    Each takes the GPU of its local rank, or the CPU.

    Raises:
        UserError: the device is not available, or one GPU is named for several processes.
    """
    count, device = int(os.environ.get("WORLD_SIZE", "1")), machine.device
    how = machine.model_dump(exclude={"device"})
    if count == 1:
        yield Runtime(choose_device(device), **how)
        return
    if ":" in device or device == "mps":
        raise UserError(f"machine.device {device!r} names one GPU for {count} processes; use auto or cuda")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"{local + 1} processes on a machine with {torch.cuda.device_count()} GPUs; start one per GPU"
            )
        device = f"cuda:{local}"  # and no other: each context takes half a GB of its GPU
    chosen = choose_device(device)
    # A process may wait for hours while the first one holds another run's lock; torchrun ends all when one fails.
    # NCCL is told of its GPU at once, so that a broken network shows before a lock is waited for.
    on_gpu = chosen.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", timeout=timedelta(days=1), device_id=chosen if on_gpu else None
    )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    yield Runtime(chosen, **how, rank=dist.get_rank(), count=count, here=here)
    dist.destroy_process_group()  # not after an error: it would wait for the others
