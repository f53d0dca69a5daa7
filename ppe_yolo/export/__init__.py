"""From a checkpoint to an ONNX file that keeps the contract: export, parity, quantisation, speed."""
