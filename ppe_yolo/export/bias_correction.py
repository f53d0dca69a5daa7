"""Takes the mean error out of a quantised network (Nagel et al. 2019 "Data-Free Quantization", section 4.2, on photos)."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from rich.console import Console
from rich.progress import track

_INT32 = np.iinfo(np.int32)


def correct_biases(
    quantized: ModelProto, model: ModelProto, batches: Sequence[dict[str, NDArray[np.uint8]]], console: Console | None = None
) -> None:
    """Shifts the bias of every convolution so that each of its channels has the mean that it has in float.

    Rounded weights and ranges move the mean of a channel, and every layer after it moves with it. So they are corrected one
    after the other: what a layer inherits from those before it is part of its own error.

    Args:
        quantized: A graph of QuantizeLinear and DequantizeLinear nodes, changed in place.
        model: The same graph in float, its convolutions' outputs of the same names.
        batches: What to feed both with.
        console: Where to show progress, if anywhere.
    """
    nodes = {name: node for node in quantized.graph.node for name in node.output}
    tensors = {t.name: t for t in quantized.graph.initializer}
    convolutions = [n for n in quantized.graph.node if n.op_type == "Conv" and len(n.input) == 3]
    wanted = channel_means(model, [n.output[0] for n in convolutions], batches)
    pairs = list(zip(convolutions, wanted, strict=True))
    for convolution, mean in track(pairs, "biases", console=console, disable=console is None, transient=True):
        error = mean - channel_means(quantized, convolution.output, batches)[0]
        name = convolution.input[2]
        if name in nodes:  # bytes are added in int32, of which one step is the scale
            value, scale = (numpy_helper.to_array(tensors[n]) for n in nodes[name].input[:2])
            name = nodes[name].input[0]
            corrected = np.clip(value + np.rint(error / scale), _INT32.min, _INT32.max).astype(np.int32)
            tensors[name].CopyFrom(numpy_helper.from_array(corrected, name))
        else:  # a tensor of its own: exporters let convolutions share what is equal
            corrected = (numpy_helper.to_array(tensors[name]) + error).astype(np.float32)
            convolution.input[2] = f"{convolution.output[0]}_bias"
            quantized.graph.initializer.append(numpy_helper.from_array(corrected, convolution.input[2]))
    # onnxruntime warns of tensors that nobody uses, whenever the file is loaded
    used = {name for node in quantized.graph.node for name in node.input}
    kept = [t for t in quantized.graph.initializer if t.name in used]
    del quantized.graph.initializer[:]
    quantized.graph.initializer.extend(kept)


def channel_means(
    model: ModelProto, names: Iterable[str], batches: Sequence[dict[str, NDArray[np.uint8]]]
) -> list[NDArray[np.float64]]:
    """Mean of each channel [C] of the named tensors [B, C, H, W] over all batches of one size."""
    names = list(names)
    watched = ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what comes after the watched ones is not needed, and it warns of that
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums = [0.0] * len(names)
    for batch in batches:
        sums = [s + a.mean((0, 2, 3), dtype=np.float64) for s, a in zip(sums, session.run(names, batch), strict=True)]
    return [np.asarray(s / len(batches)) for s in sums]
