# The server with the bundled model, for CPUs. docker build -t neucodec-server --build-arg PIP_EXTRA_INDEX_URL=URL . , where
# URL is PyTorch's index of CPU builds; without it pip takes the CUDA build, which is gigabytes larger.
FROM python:3.11-slim-bookworm AS build
# pip reads it from the environment, so that no layer after this stage holds it.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/neucodec
# torch in a layer of its own: it changes seldom.
COPY constraints.txt ./
RUN /opt/neucodec/bin/pip install -c constraints.txt torch
COPY setup.py pyproject.toml README.md LICENSE ./
COPY client client
COPY docs docs
COPY server server
COPY streaming streaming
RUN /opt/neucodec/bin/pip install -c constraints.txt '.[server]'
# Steps are compiled for CPUs of the kind that builds the image; others compute with torch alone, which takes 1.4 to 2.5
# times as long.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN XDG_CACHE_HOME=/opt/neucodec/cache /opt/neucodec/bin/python -m neucodec_streaming.kernels.native

# For GPUs, not yet run on hardware (docs/gpu.md): docker build --target cuda -t neucodec-server:0.1.0-cuda . , without
# PIP_EXTRA_INDEX_URL. It keeps the compiler: Triton compiles its kernels at the start, into the cache folder.
FROM build AS cuda
ENV PATH=/opt/neucodec/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/opt/neucodec/cache \
    TRITON_CACHE_DIR=/tmp/triton NEUCODEC_HOST=0.0.0.0 NEUCODEC_LOG_FORMAT=json NEUCODEC_DEVICE=cuda
USER 10001:10001
EXPOSE 8765
# Loading the published checkpoint and capturing its graphs takes minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/readyz', timeout=4)"]
ENTRYPOINT ["neucodec-server"]

FROM build AS build-ray
RUN /opt/neucodec/bin/pip install -c constraints.txt '.[ray]'

# A node of a Ray cluster with the Serve application (docs/ray.md): docker build --target ray -t neucodec-ray:0.1.0 .
# KubeRay starts Ray in it; before version 1.6 it probes with wget.
FROM python:3.11-slim-bookworm AS ray
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
COPY --from=build-ray /opt/neucodec /opt/neucodec
COPY deploy/ray_serve.py /opt/neucodec/app/deploy/ray_serve.py
ENV PATH=/opt/neucodec/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/opt/neucodec/cache \
    PYTHONPATH=/opt/neucodec/app HOME=/tmp
USER 10001:10001
EXPOSE 6379 8000 8265 10001
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["ray", "health-check"]
ENTRYPOINT []

FROM python:3.11-slim-bookworm
COPY --from=build /opt/neucodec /opt/neucodec
ENV PATH=/opt/neucodec/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/opt/neucodec/cache \
    NEUCODEC_HOST=0.0.0.0 NEUCODEC_LOG_FORMAT=json
# By number, so that an orchestrator can tell that it is not root. `docker run --read-only --tmpfs /tmp` works: nothing is
# written, but some imports look for a place for temporary files.
USER 10001:10001
EXPOSE 8765
# Loading takes about 20 s; a stuck device fails it too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/readyz', timeout=4)"]
ENTRYPOINT ["neucodec-server"]
