# The command yolov5-spd in a container; see docs/docker.md.
#
#   docker build -t yolov5-spd .                                     for the CPU
#   docker build -t yolov5-spd:cuda --build-arg DEVICE=cuda .        for NVIDIA GPUs
#
# Both have the same plain base. PyTorch's wheels on PyPI carry the CUDA libraries that they were built with, and the
# driver comes from the host, so an nvidia/cuda base would add a second copy of CUDA, several GB, and no Python.

ARG BASE=python:3.11-slim-bookworm
ARG DEVICE=cpu

# hadolint ignore=DL3006
FROM ${BASE} AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What OpenCV loads. The other packages only serve tests.
RUN --mount=type=bind,source=apt.txt,target=/tmp/apt.txt \
    apt-get update \
    && grep -v -e '^chromium$' -e '^libstb-dev$' /tmp/apt.txt | xargs apt-get install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

FROM base AS torch-cpu
# Without their dependencies, as this index has other versions of them; the step that installs the rest adds them.
RUN --mount=type=bind,source=constraints.txt,target=/tmp/constraints.txt \
    pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu \
    -c /tmp/constraints.txt torch torchvision

FROM base AS torch-cuda
RUN --mount=type=bind,source=constraints.txt,target=/tmp/constraints.txt \
    pip install --no-cache-dir -c /tmp/constraints.txt torch torchvision
# What the NVIDIA container runtime brings in from the host.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM torch-${DEVICE}
RUN --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \
    --mount=type=bind,source=constraints.txt,target=/tmp/constraints.txt \
    pip install --no-cache-dir -r /tmp/requirements.txt -c /tmp/constraints.txt
# rw: building writes beside the sources, which is thrown away.
RUN --mount=type=bind,target=/source,rw pip install --no-cache-dir --no-deps /source

# Data sets and runs: mount a folder of yours here. Matplotlib's cache is where any user may write (docker run --user).
ENV MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --create-home --uid 1000 spd && install -d -o spd -g spd /work
USER 1000
WORKDIR /work
ENTRYPOINT ["yolov5-spd"]
CMD ["--help"]
