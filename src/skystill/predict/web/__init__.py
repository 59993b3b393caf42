"""The model as one web page: what a browser runs is in the files beside this one, and `export` puts it together."""
