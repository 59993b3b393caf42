"""Work on a cluster of Dask: the connection to it, and the prediction of an archive.

No other package imports `distributed`. It comes with the extra `cluster`.
"""
