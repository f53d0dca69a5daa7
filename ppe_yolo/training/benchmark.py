"""`ppe-yolo benchmark train`: our training step against a plain one, interleaved, and the loader against the step."""

import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
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
from ppe_yolo.data.datamodule import DetectionDataModule
from ppe_yolo.data.loading.samples import Batch
from ppe_yolo.data.synthetic import draw_site_dataset
from ppe_yolo.model.blocks import ConvBlock
from ppe_yolo.model.coding import flatten_maps
from ppe_yolo.model.yolov3 import Architecture, YoloV3
from ppe_yolo.training.callbacks import EmaWeights
from ppe_yolo.training.loss import LossConfig, compute_loss
from ppe_yolo.training.task import DetectorTask

WARM_UP = 3  # steps that are not timed: memory is being laid out


def benchmark_train(
    architecture: Architecture,
    batch_size: int,
    side: int,
    steps: int,
    workers: int,
    data: str | None,
    class_map: str,
    console: Console,
) -> dict[str, float]:
    """Times both sides by turns in one process and prints a table.

    "Plain" is what a careful person writes without this project: the same network as convolution, batch norm, leaky ReLU
    and pooling in that order, channels_last, the same loss, AdamW, no Lightning, no averaged weights, no clipping.
    "Ours" is everything that `ppe-yolo fit` does in a step.

    Returns:
        Median seconds of `ours` and `plain`, their `ratio`, the `step` and `loader` rates in photos per second.
    """
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            data = str(Path(folder) / "site")
            draw_site_dataset(Path(data), trainval=120, test=4, size=(480, 640))
        module = DetectionDataModule(
            data, class_map=class_map, input_size=(side, side), batch_size=batch_size, num_workers=workers
        )
        times = _time_steps(architecture, module, batch_size, steps)
        loader = _time_loader(module, steps)
    ours, plain = statistics.median(times["ours"]), statistics.median(times["plain"])
    ratio = statistics.median(p / o for o, p in zip(times["ours"], times["plain"], strict=True))
    result = {"ours": ours, "plain": plain, "ratio": ratio, "step": batch_size / ours, "loader": loader}
    table = Table("", "median", title=f"{architecture}, {side}x{side}, batch {batch_size}", title_justify="left")
    table.add_row("our step, Lightning and all", f"{1e3 * ours:.0f} ms")
    table.add_row("plain channels_last step", f"{1e3 * plain:.0f} ms")
    table.add_row("plain / ours, pair by pair", f"{ratio:.3f}")
    table.add_row("our step consumes", f"{result['step']:.1f} photos/s")
    table.add_row(f"the loader delivers ({workers} workers)", f"{loader:.1f} photos/s")
    table.add_row("loader / step", f"{loader / result['step']:.2f}")
    console.print(table)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {steps} pairs")
    return result


class _Plain:
    """The plain step."""

    def __init__(self, architecture: Architecture, classes: int) -> None:
        network = YoloV3(architecture, classes)
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, ConvBlock):
                    setattr(parent, name, _book_order(child))
        self.network = network.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(network.parameters(), 2e-3)

    def step(self, batch: Batch) -> None:
        images = batch.images.float().div(255).contiguous(memory_format=torch.channels_last)
        maps = self.network(images)
        loss = compute_loss(flatten_maps(maps), self.network.grid(maps), batch.targets, self.network.box_coding, LossConfig())
        self.optimizer.zero_grad()
        loss.total.backward()
        self.optimizer.step()


def _book_order(block: ConvBlock) -> nn.Sequential:
    convolution, norm, pool, _ = block
    return nn.Sequential(convolution, norm, nn.LeakyReLU(0.1), pool)


class _Pairs(Callback):
    """After each step of ours runs a plain one; the last callback, so that ours includes what all others do."""

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
        raise UserError(f"{module.root}: expected at least {batch_size} photos to train on, got {len(module.train_images)}")
    # from memory: a step is timed without its photos, whose rate is measured apart
    again = list(itertools.islice(itertools.cycle(batches), total))
    trainer.fit(task, DataLoader(again, batch_size=None))  # type: ignore[arg-type]
    return pairs.times


def _time_loader(module: DetectionDataModule, steps: int) -> float:
    """Photos per second from disk to batch, the training idle meanwhile; the workers' start is not counted."""
    loader = module.train_dataloader()
    batches = (batch for epoch in itertools.count() for batch in _epoch(loader, epoch))
    for batch in itertools.islice(batches, WARM_UP):
        del batch
    start, photos = time.perf_counter(), 0
    for batch in itertools.islice(batches, max(4 * steps, 20)):
        photos += len(batch.images)
    return photos / (time.perf_counter() - start)


def _epoch(loader: DataLoader[Any], epoch: int) -> Any:
    loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
    return iter(loader)
