"""SkyStill distils large aerial-image segmentation models into small ones that run without a GPU."""

__version__ = "0.1.0"

__all__ = ["__version__"]
