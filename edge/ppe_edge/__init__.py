"""The box: cameras in, alerts out. onnxruntime, never torch."""
