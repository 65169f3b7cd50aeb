# An image that trains, tests and serves: `engine` with its arguments, by default the server.
#
#   docker build -t engine .                                         for CPUs and NVIDIA GPUs: CUDA comes with PyTorch
#   docker build -t engine:cpu --build-arg TORCH_INDEX=URL .         smaller: URL is an index with PyTorch for CPUs only
#
# Versions are those that pyproject.toml allows, the newest of them: an image is built once and kept under its digest.
# EXTRAS names parts of the package beside the server: serve,export for exported models, serve,ray for clusters.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY configs configs
COPY datasets datasets
COPY demo demo
COPY tools tools
COPY engine engine
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX
ARG EXTRAS=serve
# opencv-python needs libraries of a desktop; the build without windows takes its place.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir torch torchvision ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} \
    && pip install --no-cache-dir "engine[${EXTRAS}] @ file://$(ls /wheel/engine-*.whl)" \
    && pip uninstall --yes opencv-python \
    && pip install --no-cache-dir opencv-python-headless \
    && useradd --uid 10001 --create-home engine
# A number, so that Kubernetes sees that it is not root.
USER 10001:10001
WORKDIR /home/engine
ENV PYTHONUNBUFFERED=1
EXPOSE 8000
# Of the server; start other commands with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["engine"]
CMD ["serve", "--config-file", "/models/config.yaml", "--weights", "/models/model_final.pth", "--host", "0.0.0.0"]
