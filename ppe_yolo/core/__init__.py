"""Code shared by the library and the box. It imports numpy, OpenCV and onnxruntime, and never torch."""
