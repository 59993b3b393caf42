# SkyStill's command line and its service, without PyTorch: `docker build . -t skystill`, `docker run -p 8000:8000 skystill`.
# docs/deploy.md says how to run it behind a proxy, and how large it is.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml constraints.txt README.md LICENSE /source/
COPY src /source/src
RUN python -m venv /opt/skystill \
 && /opt/skystill/bin/pip install --no-cache-dir --no-compile -c /source/constraints.txt "/source[serve]"
# A third of what is installed is never used here: tests, symbols for debuggers, a second copy of ONNX Runtime for C, pip.
RUN cd /opt/skystill/lib/python3.11/site-packages \
 && rm -rf pip pip-* setuptools setuptools-* pkg_resources _distutils_hack distutils-precedence.pth \
 && rm -rf onnxruntime/transformers onnxruntime/tools onnxruntime/capi/libonnxruntime.so.* \
 && find . -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} + \
 && find . -name '*.pyi' -delete \
 && find rasterio pyproj -name '*.so' -exec strip --strip-unneeded {} +

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin skystill && install -d -o skystill /data
COPY --from=build /opt/skystill /opt/skystill
ENV PATH=/opt/skystill/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER skystill
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
ENTRYPOINT ["skystill"]
CMD ["serve", "--host=0.0.0.0"]
