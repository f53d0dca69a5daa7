"""From a checkpoint to other files: ONNX with a parity check, 8-bit integers, packed weights, Darknet; and their speed."""
