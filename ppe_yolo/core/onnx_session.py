"""ONNX models: open a session, check it against its contract, run it on images."""

from typing import Any

from ppe_yolo.core.contract import ONNX_METADATA_KEY, ContractError, ModelContract


def session_contract(session: Any, source: str) -> ModelContract:
    """The contract of an opened ONNX model, checked against the graph that it describes.

    Args:
        session: An `onnxruntime.InferenceSession`.
        source: The file's name, for messages.

    Raises:
        ContractError: No contract, one that cannot be read, or one that the graph contradicts.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    if ONNX_METADATA_KEY not in metadata:
        raise ContractError(f"{source}: expected a model of `ppe-yolo export`, got one without a contract in its metadata")
    try:
        contract = ModelContract.from_json(metadata[ONNX_METADATA_KEY])
    except ContractError as error:
        raise ContractError(f"{source}: {error}") from error
    most = contract.max_detections
    expected = {
        "images": ("tensor(uint8)", [*contract.input_size, 3]),
        "boxes_xyxy": ("tensor(float)", [most, 4]),
        "scores": ("tensor(float)", [most]),
        "labels": ("tensor(int64)", [most]),
    }
    # the first size is the batch, which is free
    found = {v.name: (v.type, list(v.shape)[1:]) for v in (*session.get_inputs(), *session.get_outputs())}
    if "decoded_xyxy" in found:
        raise ContractError(f"{source}: exported with --without-nms, for other runtimes: export it again without that option")
    for name, promised in expected.items():
        if found.get(name) != promised:
            raise ContractError(
                f"{source}: the contract promises {name} {_show(promised)}, the graph has {_show(found.get(name))}: "
                "export the model again"
            )
    strange = sorted(set(found) - set(expected))
    if strange:
        raise ContractError(f"{source}: the graph has {', '.join(strange)}, of which the contract knows nothing")
    return contract


def _show(value: tuple[str, list[Any]] | None) -> str:
    return "nothing of this name" if value is None else f"{value[0]} [batch, {', '.join(map(str, value[1]))}]"
