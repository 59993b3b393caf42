"""Predict class rasters from a model file and images, in bounded memory."""

from skystill.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
