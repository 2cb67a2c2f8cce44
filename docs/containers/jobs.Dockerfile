# Bulk jobs, on nodes with an NVIDIA GPU or without. Linted, not built: docs/scale.md.
#     docker build --file docs/containers/jobs.Dockerfile --tag registry.example.org/whybox-jobs:1.0 .
# Who builds pins the digest, too (python:...@sha256:...): a tag can be moved.
# CUDA comes with torch's wheels; the node brings the driver, and its container toolkit lends it.
FROM python:3.11.14-slim-bookworm

# Sleeping rather than spinning threads: decoding, explaining and uploading share the cores.
# What looks for a home finds the one place that can be written.
ENV HOME=/tmp \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    OMP_WAIT_POLICY=passive \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/whybox
COPY pyproject.toml constraints.txt README.md ./
COPY handlers handlers
COPY archives archives
COPY jobs jobs
COPY --chmod=755 docs/containers/whybox-job /usr/local/bin/whybox-job
RUN pip install --no-cache-dir --constraint constraints.txt --editable . \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin whybox

# By number, so that runAsNonRoot can tell.
USER 10001:10001
CMD ["python", "-m", "jobs", "--help"]
