"""The service of `skystill serve`: images and GeoTIFFs in, classes out, over HTTP.

A client sends pixels and never a name: bodies are written to a folder of the service, under names of its own, and no
path or address from a client is opened.
"""
