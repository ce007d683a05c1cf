# SPDX-License-Identifier: Apache-2.0
# The gateway, with the simulator and the other commands: docker run IMAGE serve | simulate | chat …
#
# Builds that must be repeatable to the byte pin the base by its digest: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

# ---- what is installed, from hashed locks, into a virtual environment that the last stage copies ---------------------
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Wheels alone: there is no compiler here, and none is wanted.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /opt/llm-gateway \
 && /opt/llm-gateway/bin/pip install --only-binary :all: --require-hashes --requirement requirements.lock \
 && python3 -m venv tools \
 && tools/bin/pip install --only-binary :all: --require-hashes --requirement requirements-build.lock

# Our own code comes last: a change of it installs nothing else anew. What has run needs no installer.
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/llm-gateway/bin/pip install --no-deps dist/*.whl \
 && /opt/llm-gateway/bin/pip uninstall --yes pip

# ---- the dev loop's image: the code is synced into it, and what runs is started anew when it changes -----------------
FROM build AS dev
COPY requirements-reload.lock ./
RUN tools/bin/pip --python /opt/llm-gateway/bin/python install \
    --only-binary :all: --require-hashes --requirement requirements-reload.lock \
 && chown -R 10001:10001 service
# The code here comes before the one that is installed.
ENV PATH=/opt/llm-gateway/bin:$PATH PYTHONPATH=/build/service PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["sh", "-c", "exec watchfiles --filter python --sigint-timeout 2 \"llm-gateway $*\" /build/service", "--"]
CMD ["serve"]

# ---- the image -------------------------------------------------------------------------------------------------------
FROM ${BASE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="llm-gateway" \
      org.opencontainers.image.description="A gRPC gateway in front of vLLM, for workers that stream tokens" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/llm-gateway /opt/llm-gateway
# Nothing is written: the root file system may be read-only.
ENV PATH=/opt/llm-gateway/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, for Kubernetes can tell only of a number that it is not root.
USER 10001:10001
# gRPC, AdminService, metrics. The last two are off by default.
EXPOSE 50052 50053 9090
# Without a shell between: SIGTERM reaches the gateway, which drains.
ENTRYPOINT ["llm-gateway"]
CMD ["serve"]
