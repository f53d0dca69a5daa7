"""The model: the ONNX file that runs, and where models are stored."""
