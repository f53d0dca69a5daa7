"""The box at the gate: cameras in, alerts out. onnxruntime, never torch."""
