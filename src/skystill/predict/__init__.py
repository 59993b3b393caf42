"""From a model file and images to class rasters, in bounded memory."""

from skystill.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
