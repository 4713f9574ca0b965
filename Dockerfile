# One image for API, worker and migrations: the Procfile's commands, without what only development needs.
FROM node:24-slim AS page
WORKDIR /source/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY web ./
RUN npm run build -- --outDir /page

FROM python:3.13-slim AS build
WORKDIR /source
RUN python -m venv /opt/throughline
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY api api
COPY worker worker
COPY common common
COPY migrations migrations
COPY --from=page /page api/web/dist
RUN /opt/throughline/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[tracing]" \
    && /opt/throughline/bin/pip uninstall --yes pip

FROM python:3.13-slim
COPY --from=build /opt/throughline /opt/throughline
COPY Procfile /srv/Procfile
ENV PATH=/opt/throughline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    THROUGHLINE_ENV=production \
    HOST=0.0.0.0 \
    PORT=8000
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "api"]
