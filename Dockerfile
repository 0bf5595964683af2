# Three images from one file:
#   api              API, scheduler and migrations; without PyTorch
#   worker           with PyTorch; RECIPES="your-package" puts your recipes in
#   worker-examples  the worker with the recipes of the demonstration
# docs/operate.md shows how to build them; docs/decisions/0005-images-and-compose.md says why so.

# A tag moves with each security fix, and a build of today should have them. A deployment pins what
# it tested by digest: --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

# ---- installed packages, in layers that change ever more often: dependencies, then the source ----

FROM ${PYTHON_IMAGE} AS dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/lethe/bin:$PATH
RUN python -m venv /opt/lethe
WORKDIR /build
COPY pyproject.toml constraints.txt ./
# The dependencies without the source, so that a change of the source leaves this layer as it is.
# A package index of your own goes into a pip.conf, given to the build with
# --secret id=pip.conf,src=...: build arguments stay readable in an image, secrets do not.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["server"], sep="\n")' > api.txt \
    && pip install --constraint constraints.txt --requirement api.txt

FROM dependencies AS api-packages
COPY lethe lethe
COPY app app
COPY workers workers
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip install --no-deps .

FROM dependencies AS worker-dependencies
# Which build of PyTorch: on x86 Linux the ordinary one carries CUDA (gigabytes). For processors
# alone, or for another version of CUDA, name the index that PyTorch publishes for it; pip reads
# this variable.
ARG PIP_EXTRA_INDEX_URL=""
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -c 'import tomllib; print(*(d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["worker"] if not d.startswith("lethe[")), sep="\n")' > worker.txt \
    && pip install --constraint constraints.txt --requirement api.txt --requirement worker.txt

FROM worker-dependencies AS worker-packages
COPY lethe lethe
COPY app app
COPY workers workers
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip install --no-deps .
# Your own package with recipes, as pip names it; several with spaces between them. It comes after
# Lethe, so that what it requires of Lethe is met and never looked for on an index.
ARG RECIPES=""
# hadolint ignore=SC2086
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    if [ -n "$RECIPES" ]; then pip install --constraint constraints.txt $RECIPES; fi

FROM worker-packages AS worker-examples-packages
COPY examples examples
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip install --constraint constraints.txt ./examples

# ---- what runs: the packages above, on a fresh image ----

FROM ${PYTHON_IMAGE} AS runtime
# A fixed number: the volume of artifacts belongs to it, and Kubernetes' runAsNonRoot can see that
# it is not root. The folders are made here because a new named volume takes over its owner.
RUN groupadd --gid 10001 lethe \
    && useradd --uid 10001 --gid lethe --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lethe \
    && install --directory --owner lethe --group lethe --mode 0750 /var/lib/lethe/artifacts /var/lib/lethe/witness
# Nothing is written but these and /tmp, so that the root file system can be read-only.
ENV PATH=/opt/lethe/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LETHE_ARTIFACTS_FOLDER=/var/lib/lethe/artifacts
WORKDIR /srv/lethe
# With modes of our own: a checkout under a strict umask would be closed to the user below.
COPY --chmod=755 alembic.ini ./
COPY --chmod=755 migrations migrations
USER 10001:10001

FROM runtime AS worker
COPY --from=worker-packages /opt/lethe /opt/lethe
# Threads that wait for work would otherwise spin.
ENV OMP_WAIT_POLICY=PASSIVE
CMD ["celery", "--app", "workers.celery_app", "worker", "--queues", "jobs", "--pool", "prefork", "--concurrency", "1", "--hostname", "worker@%h"]

FROM worker AS worker-examples
# hadolint ignore=DL3002
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends dataset-fashion-mnist \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=worker-examples-packages /opt/lethe /opt/lethe

# The last one, so that a build which names no target gets it.
FROM runtime AS api
COPY --from=api-packages /opt/lethe /opt/lethe
EXPOSE 8000
# Whether the process lives, and not /readyz: who restarts unhealthy containers must not restart
# this one because the database is away. Past any proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["uvicorn", "--factory", "app.serving:create", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", "--timeout-graceful-shutdown", "30"]
