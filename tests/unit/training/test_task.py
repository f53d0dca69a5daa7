"""DetectorTask: learning rate, optimizer, hyper-parameters, and resuming."""

import types

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.loading.samples import Batch
from ppe_yolo.inference.checkpoint import CHECKPOINT_KEY, read_checkpoint
from ppe_yolo.training.loss import AssignConfig, LossConfig
from ppe_yolo.training.task import DetectorTask, OptimizerConfig, lr_factor, to_network_input


def test_lr_factor_rises_linearly_and_falls_by_half_cosine():
    # 3 steps of warm-up, then 4 to fall from 1 to 0.2: half a cosine is 1, 0.854, 0.5, 0.146 there
    factors = [lr_factor(step, total=7, warmup=3, final=0.2) for step in range(9)]
    half_cosine = [1, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2, 0, 0]
    assert factors == pytest.approx([0.25, 0.5, 0.75] + [0.2 + 0.8 * h for h in half_cosine])


def test_lr_factor_expresses_original_schedule():
    # 10 epochs of 1210 batches: 2 to warm up to 1e-3, then a cosine to 1e-6
    total, warmup = 12_100, 2_420
    rates = [1e-3 * lr_factor(step, total, warmup, final=1e-3) for step in range(total)]
    assert max(rates) == rates[warmup] == pytest.approx(1e-3)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-1] == pytest.approx(1e-6, rel=1e-3)
    assert rates[(total + warmup) // 2] == pytest.approx((1e-3 + 1e-6) / 2)


def test_lr_factor_without_warm_up_starts_at_full_rate():
    assert lr_factor(0, 10, 0, 0.1) == 1.0 and lr_factor(0, 1, 1, 0.1) == 0.5


def configured(config, precision="32-true", steps=40.0, batches=20, accumulate=1):
    task = DetectorTask(optimizer=config, input_size=(64, 64))
    task._trainer = types.SimpleNamespace(
        estimated_stepping_batches=steps,
        num_training_batches=batches,
        fit_loop=types.SimpleNamespace(setup_data=lambda: None),
        accumulate_grad_batches=accumulate,
        precision=precision,
        max_epochs=2,
    )
    return task, task.configure_optimizers()


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_optimizer_decays_convolution_weights_only(name, kind):
    task, configuration = configured(OptimizerConfig(name=name, weight_decay=0.1))
    optimizer = configuration["optimizer"]
    assert type(optimizer) is kind
    groups = {g["weight_decay"]: {id(p) for p in g["params"]} for g in optimizer.param_groups}
    decayed = {id(p) for n, p in task.network.named_parameters() if p.ndim == 4}
    assert groups == {0.1: decayed, 0.0: {id(p) for p in task.network.parameters()} - decayed}
    assert len(decayed) == 13


def test_warm_up_counts_epochs_of_optimizer_steps():
    # 20 batches an epoch, two to a step: an epoch and a half are 15 steps
    config = OptimizerConfig(lr=1.0, warmup_epochs=1.5, final_lr=0.0)
    _, configuration = configured(config, batches=20, accumulate=2, steps=30.0)
    schedule = configuration["lr_scheduler"]["scheduler"]
    assert configuration["lr_scheduler"]["interval"] == "step"
    assert [schedule.lr_lambdas[0](s) for s in (0, 14, 15, 30)] == pytest.approx([1 / 16, 15 / 16, 1, 0])


def test_optimizer_training_without_end_is_refused():
    with pytest.raises(UserError, match="expected max_epochs or max_steps"):
        configured(OptimizerConfig(), steps=float("inf"))


def one_batch():
    target = {"boxes_xyxy": torch.tensor([[1.0, 1, 30, 30]]), "labels": torch.tensor([0]), "difficult": torch.tensor([False])}
    return Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [target])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_mixed_precision_with_gradient_clipping_trains(name):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        precision="bf16-mixed",
        gradient_clip_val=10.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    task = DetectorTask(optimizer=OptimizerConfig(name=name), input_size=(64, 64))
    before = [p.clone() for p in task.network.body.heads.parameters()]
    trainer.fit(task, DataLoader([one_batch()], batch_size=None))
    after = list(task.network.body.heads.parameters())
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(b, a) for b, a in zip(before, after, strict=True))


def test_to_network_input_scales_bytes_channels_last():
    images = torch.tensor([[[[0, 255]], [[51, 102]], [[255, 0]]]], dtype=torch.uint8)
    result = to_network_input(images)
    torch.testing.assert_close(result, torch.tensor([[[[0.0, 1]], [[0.2, 0.4]], [[1, 0]]]]))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert images.flatten().tolist() == [0, 255, 51, 102, 255, 0]


def test_darknet_coding_with_neighbours_is_refused():
    with pytest.raises(UserError, match="darknet cannot express a centre outside its own cell"):
        DetectorTask(input_size=(64, 64), box_coding="darknet")


SMALL = {
    "input_size": (64, 96),
    "class_names": ("none", "helmet"),
    "display_names": {"none": "bare head"},
    "anchors_wh": [(float(i), float(i)) for i in range(1, 7)],
    "box_coding": "darknet",
    "loss": LossConfig(box="giou", assign=AssignConfig(neighbours=False, max_ratio=3.0)),
    "optimizer": OptimizerConfig(name="sgd", lr=0.5),
    "max_detections": 20,
    "provenance": {"recipe": "test"},
}


def fit_one_step(task, folder):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(task, DataLoader([one_batch()], batch_size=None))
    trainer.save_checkpoint(folder / "saved.ckpt")
    return folder / "saved.ckpt"


def test_load_from_checkpoint_restores_task_without_arguments(tmp_path):
    task = DetectorTask(**SMALL)
    path = fit_one_step(task, tmp_path)
    restored = DetectorTask.load_from_checkpoint(path)
    assert restored.contract == task.contract and restored.contract.display_names == {"none": "bare head"}
    assert (restored.loss_config, restored.optimizer_config) == (SMALL["loss"], SMALL["optimizer"])
    assert restored.network.box_coding == "darknet"
    for key, tensor in task.state_dict().items():
        assert torch.equal(restored.state_dict()[key], tensor), key
    other = DetectorTask.load_from_checkpoint(path, optimizer=OptimizerConfig(name="sgd", lr=0.01))
    assert (other.optimizer_config.name, other.optimizer_config.lr) == ("sgd", 0.01)
    checkpoint = read_checkpoint(path)  # plain types only, else torch.load(weights_only=True) refuses
    assert checkpoint["hyper_parameters"]["loss"]["assign"]["max_ratio"] == 3.0


def test_load_from_checkpoint_needs_no_file_of_pretrained_weights(tmp_path):
    (tmp_path / "first").mkdir()
    start = fit_one_step(DetectorTask(**SMALL), tmp_path / "first")
    task = DetectorTask(weights=str(start), input_size=(64, 96), class_names=("none", "helmet"))
    path = fit_one_step(task, tmp_path)
    start.unlink()
    restored = DetectorTask.load_from_checkpoint(path)
    assert restored.network.anchors_wh.reshape(-1, 2).tolist() == [list(pair) for pair in SMALL["anchors_wh"]]
    assert torch.equal(restored.network.anchors_wh, task.network.anchors_wh)


def saved(task):
    task._trainer = types.SimpleNamespace(current_epoch=3, global_step=7, callback_metrics={"val/map_50": torch.tensor(0.25)})
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    return checkpoint


def test_resume_with_other_model_is_refused():
    small = {"input_size": (64, 64), "anchors_wh": [(float(i), float(i)) for i in range(1, 7)]}
    small["loss"] = LossConfig(assign=AssignConfig(neighbours=False))
    checkpoint = saved(DetectorTask(**small))
    assert '"val_map_50": 0.25' in checkpoint[CHECKPOINT_KEY]["contract"]
    DetectorTask(**small).on_load_checkpoint(checkpoint)
    for change, says in (
        ({"class_names": ("person",)}, "was trained with class_names ('helmet', 'none'), now it is ('person',)"),
        ({"input_size": (96, 64)}, "was trained with input_size (64, 64), now it is (96, 64)"),
        ({"box_coding": "darknet"}, "was trained with box_coding 'bounded', now it is 'darknet'"),
        ({"anchors_wh": None}, "was trained with anchors_wh [[1.0, 1.0]"),
    ):
        with pytest.raises(UserError) as error:
            DetectorTask(**{**small, **change}).on_load_checkpoint(checkpoint)
        assert says in str(error.value) and "--model.weights" in str(error.value)
    with pytest.raises(UserError, match="without a model contract"):
        DetectorTask(**small).on_load_checkpoint({})
