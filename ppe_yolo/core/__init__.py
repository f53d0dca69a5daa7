"""What the library shares with the box at the gate. Imports numpy, OpenCV and onnxruntime, never torch."""
