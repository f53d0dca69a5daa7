"""Bias correction on a convolution whose error can be computed by hand."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ppe_yolo.export.bias_correction import channel_means, correct_biases

BATCHES = [{"images": np.full((1, 1, 2, 2), value, np.float32)} for value in (2.0, 4.0)]


def graph(weights: list[float], bias: np.ndarray, scale: list[float] | None) -> ModelProto:
    """One convolution 1 x 1 of one channel to two; with a scale, its bias is int32."""
    nodes, name = [], "bias"
    tensors = [numpy_helper.from_array(np.array(weights, np.float32).reshape(2, 1, 1, 1), "weight")]
    if scale:
        tensors.append(numpy_helper.from_array(np.array(scale, np.float32), "scale"))
        tensors.append(numpy_helper.from_array(np.zeros(2, np.int32), "zero"))
        nodes.append(helper.make_node("DequantizeLinear", ["bias", "scale", "zero"], ["bias_float"], axis=0))
        name = "bias_float"
    tensors.append(numpy_helper.from_array(bias, "bias"))
    nodes.append(helper.make_node("Conv", ["images", "weight", name], ["out"]))
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 2, 2])],
        tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def bias_of(model: ModelProto) -> list[float]:
    return list(numpy_helper.to_array(next(t for t in model.graph.initializer if "bias" in t.name)))


def test_means_by_hand() -> None:
    [means] = channel_means(graph([1, -2], np.array([0.5, 0], np.float32), None), ["out"], BATCHES)
    assert means.tolist() == [3.5, -6]


def test_a_float_bias_takes_all_of_the_error() -> None:
    zero = np.zeros(2, np.float32)
    rounded = graph([1, -2], zero, None)
    correct_biases(rounded, graph([1.1, -2.2], zero, None), BATCHES)  # inputs are 3 on average
    assert bias_of(rounded) == pytest.approx([0.3, -0.6], abs=1e-6)


def test_a_bias_of_integers_takes_it_in_steps_of_its_scale() -> None:
    rounded = graph([1, -2], np.array([10, 10], np.int32), [0.1, 0.5])  # 1 and 5
    exact = graph([1.1, -2.2], np.array([1, 5], np.float32), None)
    correct_biases(rounded, exact, BATCHES)
    assert bias_of(rounded) == [13, 9]  # 0.3 is three steps, -0.6 one
    left = channel_means(exact, ["out"], BATCHES)[0] - channel_means(rounded, ["out"], BATCHES)[0]
    assert left == pytest.approx([0, -0.1], abs=1e-6)


def test_an_error_beyond_integers_stops_at_their_end() -> None:
    rounded = graph([0, 0], np.zeros(2, np.int32), [1e-9, 1])
    correct_biases(rounded, graph([1, 0], np.zeros(2, np.float32), None), BATCHES)
    assert bias_of(rounded) == [2**31 - 1, 0]
