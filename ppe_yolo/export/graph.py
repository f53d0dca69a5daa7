"""The ONNX graph around the network: suppression in the graph, the contract in the file's metadata."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from onnx.compose import merge_models
from onnx.parser import parse_model

from ppe_yolo import __version__
from ppe_yolo.core.contract import ONNX_METADATA_KEY, ModelContract
from ppe_yolo.inference.postprocess import MAX_CANDIDATES

OPSET = 18
IR_VERSION = 10
DECODED_BOXES, DECODED_SCORES = "decoded_xyxy", "decoded_scores"  # the network's outputs, before suppression
# the image keys of the ONNX standard (docs/MetadataProps.md): sRGB images in bytes
IMAGE_KEYS = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}

# The same as `inference.postprocess`, for a whole batch. All shapes except that of `kept` [S, 3] are static: kept candidates
# are scattered back to their positions [B, K], and a second TopK moves them to the front. If scores are equal, TopK and
# NonMaxSuppression take the lower index first, as torchvision's nms does.
_SUPPRESSION = """
<ir_version: {ir_version}, opset_import: ["": {opset}]>
suppression (float[batch, {locations}, 4] {boxes}, float[batch, {locations}, {classes}] {scores})
=> (float[batch, {most}, 4] boxes_xyxy, float[batch, {most}] scores, int64[batch, {most}] labels)
<int64[2] row = {{0, -1}}, int64[1] candidates = {{{candidates}}}, int64[1] taken = {{{taken}}}, int64[1] most = {{{most}}},
 int64 classes = {{{classes}}}, int64[3] four = {{1, 1, 4}}, int64[1] one = {{1}}, int64[1] two = {{2}},
 float nothing = {{0}}, int64 no_label = {{0}}, int64[2] batch_and_candidate = {{0, 2}}>
{{
  flat = Reshape (decoded_scores, row)
  strongest, index = TopK <axis = 1> (flat, candidates)
  location = Div (index, classes)
  label = Mod (index, classes)
  location_column = Unsqueeze (location, two)
  location_fourfold = Expand (location_column, four)
  unclipped = GatherElements <axis = 1> (decoded_xyxy, location_fourfold)
  not_negative = Max (unclipped, nothing)
  clipped = Min (not_negative, limit)
  label_number = Cast <to = 1> (label)
  plane = Mul (label_number, side)
  plane_column = Unsqueeze (plane, two)
  apart = Add (clipped, plane_column)
  one_class = Unsqueeze (strongest, one)
  kept = NonMaxSuppression (apart, one_class, most, iou_threshold, below_floor)
  where = Gather <axis = 1> (kept, batch_and_candidate)
  kept_scores = GatherND (strongest, where)
  shape = Shape (strongest)
  zeros = ConstantOfShape <value = float[1] {{0}}> (shape)
  scattered = ScatterND (zeros, where, kept_scores)
  sorted_scores, order = TopK <axis = 1> (scattered, taken)
  sorted_labels = GatherElements <axis = 1> (label, order)
  order_column = Unsqueeze (order, two)
  order_fourfold = Expand (order_column, four)
  sorted_boxes = GatherElements <axis = 1> (clipped, order_fourfold)
  is_kept = Greater (sorted_scores, nothing)
  is_kept_column = Unsqueeze (is_kept, two)
  kept_labels = Where (is_kept, sorted_labels, no_label)
  kept_boxes = Where (is_kept_column, sorted_boxes, nothing)
  {ending}
}}
"""
_ENDING = """
  boxes_xyxy = {op} (kept_boxes{boxes})
  scores = {op} (sorted_scores{scores})
  labels = {op} (kept_labels{labels})
"""


def suppression_model(locations: int, contract: ModelContract) -> ModelProto:
    """Decoded boxes [B, N, 4] and scores [B, N, C] -> boxes_xyxy [B, D, 4], scores [B, D], labels [B, D].

    Args:
        locations: N.
        contract: Provides C, D, the thresholds and the input size.
    """
    height, width = contract.input_size
    classes, most = len(contract.class_names), contract.max_detections
    candidates = min(MAX_CANDIDATES, locations * classes)
    taken = min(most, candidates)
    if taken == most:
        ending = _ENDING.format(op="Identity", boxes="", scores="", labels="")
    else:  # an input so small that it cannot have that many detections
        ending = _ENDING.format(op="Pad", boxes=", missing_boxes", scores=", missing", labels=", missing")
    model = parse_model(
        _SUPPRESSION.format(
            ir_version=IR_VERSION,
            opset=OPSET,
            locations=locations,
            classes=classes,
            boxes=DECODED_BOXES,
            scores=DECODED_SCORES,
            candidates=candidates,
            taken=taken,
            most=most,
            ending=ending,
        )
    )
    # NonMaxSuppression keeps scores above its threshold; the contract keeps those equal to it, too
    below_floor = np.nextafter(np.float32(contract.score_floor), np.float32(-1))
    values: dict[str, NDArray[Any]] = {
        "limit": np.array([width, height, width, height], dtype=np.float32),
        "side": np.array(max(height, width) + 1, dtype=np.float32),
        "iou_threshold": np.array([contract.nms_iou_threshold], dtype=np.float32),
        "below_floor": np.array([below_floor], dtype=np.float32),
        "missing_boxes": np.array([0, 0, 0, 0, most - taken, 0], dtype=np.int64),
        "missing": np.array([0, 0, 0, most - taken], dtype=np.int64),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items() if k in used)
    return model


def add_suppression(network: ModelProto, contract: ModelContract) -> ModelProto:
    """Appends `suppression_model` to a network that ends in decoded boxes and scores."""
    locations = network.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    pairs = [(name, name) for name in (DECODED_BOXES, DECODED_SCORES)]
    # the prefix prevents clashes with the network's names; the outputs get their names back
    suppression = onnx.compose.add_prefix(suppression_model(locations, contract), "suppression.", rename_inputs=False)
    for output in suppression.graph.output:
        old, output.name = output.name, output.name.removeprefix("suppression.")
        for node in suppression.graph.node:
            node.output[:] = [output.name if name == old else name for name in node.output]
    return merge_models(network, suppression, pairs)


def with_decoded_outputs(model: ModelProto) -> ModelProto:
    """A copy that also outputs the inputs of the suppression, for comparisons."""
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in (DECODED_BOXES, DECODED_SCORES)
    )
    return copy


def stamp(model: ModelProto, contract: ModelContract) -> None:
    """Writes the contract and ONNX's image keys into the metadata.

    All other metadata is removed, above all the exporter's notes at every node, which name files of this machine.
    """
    for item in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.graph.name = "ppe_yolo", __version__, "detector"
    helper.set_model_props(model, {ONNX_METADATA_KEY: contract.to_json(), **IMAGE_KEYS})
