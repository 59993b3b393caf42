"""The model file, one ONNX file with everything that is needed to use it: read, run, measure, quantise, describe."""
