"""`ppe-yolo benchmark train`: the training step against a plain one, interleaved, and the loader against the step."""

import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.loading.datamodule import DetectionDataModule
from ppe_yolo.data.loading.samples import Batch
from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.model.blocks import ConvBlock
from ppe_yolo.model.names import Architecture
from ppe_yolo.model.yolov3 import YoloV3
from ppe_yolo.training.callbacks import EmaWeights
from ppe_yolo.training.loss import LossConfig, compute_loss
from ppe_yolo.training.task import DetectorTask

WARM_UP = 3  # steps that are not timed: memory is still being allocated


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark:
    """Speed of a training.

    Attributes:
        title: Network, input size and batch size.
        ours: Median seconds of a step of `ppe-yolo fit`.
        plain: Median seconds of a plain step.
        ratio: Median of plain / ours over the pairs.
        step_rate: Images per second that the step consumes.
        loader_rate: Images per second that the loader delivers.
        workers: Loader processes.
        pairs: Number of timed pairs.
    """

    title: str
    ours: float
    plain: float
    ratio: float
    step_rate: float
    loader_rate: float
    workers: int
    pairs: int


def benchmark_train(
    architecture: Architecture,
    *,
    batch_size: int,
    side: int,
    steps: int,
    workers: int,
    data: str | None = None,
    class_map: str = "default",
) -> TrainBenchmark:
    """Times both steps in turn in one process.

    "Plain" is careful code without this project: the same network as convolution, batch norm, leaky ReLU and pooling in that
    order, channels_last, the same loss, AdamW; no Lightning, no averaged weights, no clipping. "Ours" is everything that
    `ppe-yolo fit` does in a step.

    Args:
        architecture: The network.
        batch_size: Images per step.
        side: Height and width of the input, pixels.
        steps: Number of timed steps of each.
        workers: Loader processes.
        data: A data set for the loader; drawn when None.
        class_map: Name or file.
    """
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            data = str(Path(folder) / "site")
            draw_site_dataset(Path(data), trainval=120, test=4, size=(480, 640))
        module = DetectionDataModule(
            data, class_map=class_map, input_size=(side, side), batch_size=batch_size, num_workers=workers
        )
        times = _time_steps(architecture, module, batch_size, steps)
        loader_rate = _time_loader(module, steps)
    ours = statistics.median(times["ours"])
    return TrainBenchmark(
        title=f"{architecture}, {side}x{side}, batch {batch_size}",
        ours=ours,
        plain=statistics.median(times["plain"]),
        ratio=statistics.median(p / o for o, p in zip(times["ours"], times["plain"], strict=True)),
        step_rate=batch_size / ours,
        loader_rate=loader_rate,
        workers=workers,
        pairs=steps,
    )


def print_benchmark(result: TrainBenchmark, console: Console) -> None:
    """Prints the figures as a table."""
    table = Table("", "median", title=result.title, title_justify="left")
    table.add_row("our step, including Lightning", f"{1e3 * result.ours:.0f} ms")
    table.add_row("plain channels_last step", f"{1e3 * result.plain:.0f} ms")
    table.add_row("plain / ours, pair by pair", f"{result.ratio:.3f}")
    table.add_row("our step consumes", f"{result.step_rate:.1f} images/s")
    table.add_row(f"the loader delivers ({result.workers} workers)", f"{result.loader_rate:.1f} images/s")
    table.add_row("loader / step", f"{result.loader_rate / result.step_rate:.2f}")
    console.print(table)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {result.pairs} pairs")


class _Plain:
    """The plain step."""

    def __init__(self, architecture: Architecture, classes: int) -> None:
        network = YoloV3(architecture, classes)
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, ConvBlock):
                    setattr(parent, name, _textbook_order(child))
        self.network = network.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(network.parameters(), 2e-3)

    def step(self, batch: Batch) -> None:
        images = batch.images.float().div(255).contiguous(memory_format=torch.channels_last)
        loss = compute_loss(*self.network.logits(images), batch.targets, self.network.box_coding, LossConfig())
        self.optimizer.zero_grad()
        loss.total.backward()
        self.optimizer.step()


def _textbook_order(block: ConvBlock) -> nn.Sequential:
    convolution, norm, pool, _ = block
    return nn.Sequential(convolution, norm, nn.LeakyReLU(0.1), pool)


class _Pairs(Callback):
    """Runs a plain step after each of ours; must be the last callback, so that the time of ours includes the others."""

    def __init__(self, plain: Callable[[Batch], None]) -> None:
        self.plain = plain
        self.times: dict[str, list[float]] = {"ours": [], "plain": []}
        self.since = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        middle = time.perf_counter()
        self.plain(batch)
        end = time.perf_counter()
        if batch_idx >= WARM_UP:
            self.times["ours"].append(middle - self.since)
            self.times["plain"].append(end - middle)
        self.since = time.perf_counter()


def _time_steps(architecture: Architecture, module: DetectionDataModule, batch_size: int, steps: int) -> dict[str, list[float]]:
    total = steps + WARM_UP
    task = DetectorTask(architecture, class_names=module.class_map.class_names, input_size=module.input_size)
    pairs = _Pairs(_Plain(architecture, len(module.class_map.class_names)).step)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=10.0,
        callbacks=[EmaWeights(), pairs],
    )
    module.trainer = trainer
    module.setup("fit")
    batches = [b for b in itertools.islice(module.train_dataloader(), 4) if len(b.images) == batch_size]
    if not batches:
        raise UserError(
            file=module.root, expected=f"at least {batch_size} images to train on", got=str(len(module.train_images))
        )
    # from memory: loading is timed separately
    again = list(itertools.islice(itertools.cycle(batches), total))
    trainer.fit(task, DataLoader(again, batch_size=None))  # type: ignore[arg-type]
    return pairs.times


def _time_loader(module: DetectionDataModule, steps: int) -> float:
    """Images per second from disk to batch, with no training in parallel and without the start of the workers."""
    loader = module.train_dataloader()
    batches = (batch for epoch in itertools.count() for batch in _epoch(loader, epoch))
    for batch in itertools.islice(batches, WARM_UP):
        del batch
    start, images = time.perf_counter(), 0
    for batch in itertools.islice(batches, max(4 * steps, 20)):
        images += len(batch.images)
    return images / (time.perf_counter() - start)


def _epoch(loader: DataLoader[Any], epoch: int) -> Iterator[Batch]:
    loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
    return iter(loader)
