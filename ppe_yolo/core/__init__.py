"""Code shared by the library and the edge device. It imports numpy, OpenCV and onnxruntime, and never torch."""
