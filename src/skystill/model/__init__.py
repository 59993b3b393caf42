"""One ONNX file that carries all it needs: reading it, running it, measuring it, quantising it, describing it."""
