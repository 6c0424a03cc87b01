# The images of Ratchet, built from this folder. One target a service; those whose models need torch share its layer.
#
#   docker build --target trainer --tag ratchet/trainer .
#
# Arguments: PYTHON, the base image. PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS, where packages come from (PyTorch's
# index of CPU builds, say); nothing of them stays in an image. WITHOUT, a package to go without: reasoning-gym, of 150 MB,
# unless it is set empty. VERSION and REVISION, for the labels.
ARG PYTHON=python:3.11-slim-bookworm

# --- what every image runs on -----------------------------------------------------------------------------------------
FROM ${PYTHON} AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /var/lib/ratchet --shell /usr/sbin/nologin ratchet \
    && install -d -m 0700 -o ratchet -g ratchet /var/lib/ratchet
ENV PATH=/opt/ratchet/bin:/opt/code/bin:$PATH \
    PYTHONPATH=/opt/code \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/var/lib/ratchet/huggingface \
    RATCHET_HOME=/var/lib/ratchet \
    RATCHET_CONTROL__ALIVE_FILE=/tmp/alive
WORKDIR /var/lib/ratchet
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--"]

# --- packages of others, in one virtual environment for each kind of image --------------------------------------------
FROM ${PYTHON} AS tools
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/ratchet

# Torch with what it needs, by itself: gigabytes that stay as they are until one of its own pins changes. What is beside it
# in /opt/models belongs to the same environment.
FROM tools AS torch-alone
COPY constraints-torch.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/ratchet install -c constraints-torch.txt torch \
    && for lib in /opt/ratchet/lib/python3.*; do \
        echo "import site; site.addsitedir('/opt/models/lib/$(basename "$lib")/site-packages')" \
            >"$lib/site-packages/models.pth" || exit 1; \
    done

FROM tools AS build
COPY constraints.txt ./
COPY scripts scripts
COPY shared/pyproject.toml shared/
COPY services/trainer/pyproject.toml services/trainer/
COPY services/evaluator/pyproject.toml services/evaluator/
COPY services/miner/pyproject.toml services/miner/
COPY services/deployer/pyproject.toml services/deployer/
COPY services/datagen/pyproject.toml services/datagen/

FROM build AS judge-packages
ARG WITHOUT=reasoning-gym
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/requirements.py "-${WITHOUT}" 'shared[postgres,s3]' services/evaluator services/deployer \
        services/datagen >needed.txt \
    && python -m pip --python /opt/ratchet install -c constraints.txt -r needed.txt \
    && scripts/strip-packages /opt/ratchet

# Tokenizers come without what they download models with, which is 22 MB: ours come from the artifact store.
FROM build AS miner-packages
ARG WITHOUT=reasoning-gym
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/requirements.py "-${WITHOUT}" -tokenizers 'shared[postgres,s3]' services/miner >needed.txt \
    && python -m pip --python /opt/ratchet install -c constraints.txt -r needed.txt \
    && python -m pip --python /opt/ratchet install -c constraints.txt --no-deps tokenizers \
    && scripts/strip-packages /opt/ratchet

FROM build AS web-packages
ARG WITHOUT=reasoning-gym
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/requirements.py "-${WITHOUT}" 'shared[postgres,s3,web,files,stats,tasks]' >needed.txt \
    && python -m pip --python /opt/ratchet install -c constraints.txt -r needed.txt \
    && scripts/strip-packages /opt/ratchet

FROM torch-alone AS torch-packages
ARG WITHOUT=reasoning-gym
COPY --from=build /build /build
RUN --mount=type=cache,target=/root/.cache/pip \
    python scripts/requirements.py "-${WITHOUT}" 'shared[postgres,s3,serving]' services/trainer \
        'services/evaluator[gpu]' 'services/miner[gpu]' >needed.txt \
    && python -m pip --python /opt/ratchet install --prefix /opt/models -c constraints.txt -r needed.txt

FROM build AS flower-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/ratchet install -c constraints.txt flower 'celery[redis]'

# --- our own code, a folder each package ------------------------------------------------------------------------------
FROM build AS code
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/tools && python -m pip --python /opt/tools install -c constraints.txt hatchling
ENV PYTHONPATH=/opt/tools/lib/python3.11/site-packages
COPY shared shared
COPY services services
RUN for package in shared services/*; do \
        python -m pip --python /opt/ratchet install --no-deps --no-build-isolation \
            --target "/code/$(basename "$package")" "./$package" || exit 1; \
    done

# --- the images -------------------------------------------------------------------------------------------------------
FROM base AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Ratchet" \
      org.opencontainers.image.description="Trains a language model around the clock, and only serves a better one" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A worker touches the file as long as it idles and hears its canary, or works and makes progress.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --start-interval=1s --retries=4 \
    CMD ["sh", "-c", "test -n \"$(find /tmp/alive -newermt '-60 seconds' 2>/dev/null)\""]
USER 10001:10001

FROM service AS flower
COPY --from=flower-packages /opt/ratchet /opt/ratchet
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --start-interval=1s --retries=4 \
    CMD ["python", "-S", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:5555/healthcheck', timeout=4)"]
EXPOSE 5555
CMD ["celery", "flower", "--address=0.0.0.0", "--port=5555"]

FROM service AS evaluator
COPY --from=judge-packages /opt/ratchet /opt/ratchet
COPY --from=code /code/shared /code/evaluator /opt/code/
CMD ["python", "-m", "ratchet.worker", "regression"]

# The hub's `ratchet backup` runs pg_dump, which refuses a server newer than itself: the major version of postgres in
# compose/hub.yml is that of this Debian's client. Its programs come without the packages' wrappers, which need Perl.
FROM base AS postgres-client
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-client && rm -rf /var/lib/apt/lists/*

FROM service AS deployer
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libpq5 && rm -rf /var/lib/apt/lists/*
COPY --from=postgres-client /usr/lib/postgresql /usr/lib/postgresql
USER 10001:10001
COPY --from=judge-packages /opt/ratchet /opt/ratchet
COPY --from=code /code/shared /code/deployer /opt/code/
CMD ["python", "-m", "ratchet.worker", "deployment"]

FROM service AS datagen
COPY --from=judge-packages /opt/ratchet /opt/ratchet
COPY --from=code /code/shared /code/datagen /opt/code/
CMD ["python", "-m", "ratchet.worker", "generation"]

FROM service AS miner
COPY --from=miner-packages /opt/ratchet /opt/ratchet
COPY --from=code /code/shared /code/miner /opt/code/
CMD ["python", "-m", "ratchet.worker", "diversity"]

# The Control Room has the code of every system, since its actions wake them.
FROM service AS web
COPY --from=web-packages /opt/ratchet /opt/ratchet
COPY --from=code /code/shared /code/trainer /code/evaluator /code/miner /code/deployer /code/datagen /opt/code/
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --start-interval=1s --retries=4 \
    CMD ["python", "-S", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=4)"]
EXPOSE 8000
CMD ["python", "-m", "ratchet.web.server"]

FROM service AS torch
ENV PATH=/opt/models/bin:$PATH
COPY --from=torch-alone /opt/ratchet /opt/ratchet
COPY --from=torch-packages /opt/models /opt/models
COPY --from=code /code/shared /opt/code/

FROM torch AS trainer
COPY --from=code /code/trainer /opt/code/
CMD ["python", "-m", "ratchet.worker", "training"]

FROM torch AS evaluator-gpu
COPY --from=code /code/evaluator /opt/code/
CMD ["python", "-m", "ratchet.worker", "testing"]

FROM torch AS miner-gpu
COPY --from=code /code/miner /opt/code/
CMD ["python", "-m", "ratchet.worker", "mining"]

FROM torch AS serving
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --start-interval=1s --retries=4 \
    CMD ["python", "-S", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8100/health', timeout=4)"]
EXPOSE 8100
CMD ["python", "-m", "ratchet.serving.server", "--home", "/var/lib/ratchet/serving", "--host", "0.0.0.0"]
