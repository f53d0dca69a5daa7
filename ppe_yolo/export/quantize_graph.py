"""8-bit integers in an ONNX graph: which nodes are quantised, and how the ranges of their tensors are found."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from ppe_yolo.core.contract import ModelContract
from ppe_yolo.core.letterbox import letterbox
from ppe_yolo.data.annotation import AnnotatedImage
from ppe_yolo.data.images import read_image
from ppe_yolo.export.graph import stamp

QUANTIZED = ("Conv", "MaxPool", "LeakyRelu", "Concat", "Resize", "Pad", "Add")
PERCENTILE = 99.999  # of a tensor's values: the rest would widen the steps of all others, which moves boxes
CHUNK = 8  # images whose tensors are in memory at the same time


def quantize_graph(
    model: ModelProto,
    contract: ModelContract,
    images: Sequence[AnnotatedImage],
    *,
    reduce_range: bool,
    on_image: Callable[[], None] = lambda: None,
) -> ModelProto:
    """Puts QuantizeLinear and DequantizeLinear around the body of the network, and writes the contract into the metadata.

    The last convolution of each head, decoding and suppression stay in float: they cost next to nothing, and a step of
    1/255 in a logit would move boxes.

    Args:
        model: In float32; not changed.
        contract: For the result.
        images: Calibration images, on which the ranges are found.
        reduce_range: Weights of 7 bits instead of 8.
        on_image: Called after each image.
    """
    pixels = next(n.output[0] for n in model.graph.node if n.op_type == "Cast")
    body = body_nodes(model)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "quantized.onnx"
        logging.disable(logging.WARNING)  # advice about steps that were done in another way
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # onnxruntime prints its settings
                quantize_static(
                    pool_first(model),  # onnxruntime removes the weights from its argument
                    target,
                    CalibrationImages(images, contract, on_image),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(QUANTIZED),
                    nodes_to_quantize=body,
                    per_channel=True,
                    reduce_range=reduce_range,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.Percentile,
                    extra_options={
                        "CalibPercentile": PERCENTILE,
                        "CalibStridedMinMax": CHUNK,  # for every method, despite its name
                        # the bytes of the pixels stay as they are
                        "TensorQuantOverrides": {
                            pixels: [
                                {
                                    "quant_type": QuantType.QUInt8,
                                    "scale": np.array(1, np.float32),
                                    "zero_point": np.array(0, np.uint8),
                                }
                            ]
                        },
                    },
                )
        finally:
            logging.disable(logging.NOTSET)
        quantized = onnx.load_model(target)
    _take_bytes(quantized, pixels)
    stamp(quantized, contract)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _take_bytes(model: ModelProto, pixels: str) -> None:
    """Removes the cast of the input bytes to float and back: with a scale of 1, they are the same bytes."""
    nodes = model.graph.node
    cast = next(n for n in nodes if n.output[0] == pixels)
    quantize = next(n for n in nodes if n.op_type == "QuantizeLinear" and n.input[0] == pixels)
    for node in nodes:
        node.input[:] = [cast.input[0] if name == quantize.output[0] else name for name in node.input]
    nodes.remove(cast)
    nodes.remove(quantize)


class CalibrationImages(CalibrationDataReader):  # type: ignore[misc]
    """Letterboxed images one by one, in chunks, so that not all their tensors are in memory at once."""

    def __init__(self, images: Sequence[AnnotatedImage], contract: ModelContract, on_image: Callable[[], None]) -> None:
        self.images, self.contract, self.on_image = images, contract, on_image
        self.chunk = iter(images)

    def __len__(self) -> int:
        return -(-len(self.images) // CHUNK) * CHUNK  # onnxruntime asks for whole chunks

    def set_range(self, start_index: int, end_index: int) -> None:
        """Starts a chunk."""
        self.chunk = iter(self.images[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next image of the chunk, as input of the network; None at its end."""
        image = next(self.chunk, None)
        if image is None:
            return None
        self.on_image()
        return {"images": letterbox(read_image(image.image), self.contract.input_size, self.contract.pad_value)[0][None]}


def pool_first(model: ModelProto) -> ModelProto:
    """A copy in which max pooling comes before a leaky ReLU that feeds nothing else.

    The results are the same. In float the other order is faster, since convolution and ReLU are one operation. In integers
    they are two, and a ReLU after the pooling works on a quarter of the values.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.ClearField("value_info")  # the shape between the two changes
    users: dict[str, list[NodeProto]] = {}
    for node in copy.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in copy.graph.node:
        following = users.get(node.output[0], [])
        if node.op_type == "LeakyRelu" and [n.op_type for n in following] == ["MaxPool"]:
            _swap_operations(node, following[0])
    return copy


def _swap_operations(a: NodeProto, b: NodeProto) -> None:
    kept = NodeProto()
    kept.CopyFrom(a)
    for target, source in ((a, b), (b, kept)):
        target.op_type = source.op_type
        del target.attribute[:]
        target.attribute.extend(source.attribute)


def body_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes to quantise: those before the last convolution of a head."""
    maker = {name: node.name for node in model.graph.node for name in node.output}
    before: dict[str, set[str]] = {}  # node -> all nodes before it; ONNX lists nodes in topological order
    for node in model.graph.node:
        earlier = {maker[name] for name in node.input if name in maker}
        before[node.name] = earlier.union(*(before[name] for name in earlier))
    convolutions = {n.name for n in model.graph.node if n.op_type == "Conv"}
    last = convolutions.difference(*(before[name] for name in convolutions))
    body = set().union(*(before[name] for name in last))
    return [n.name for n in model.graph.node if n.name in body and n.op_type in QUANTIZED]
