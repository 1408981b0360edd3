# The exporter's image, and the simulated night's, which compose.yaml needs.
#
#   docker build --build-arg PROMPT_REDIS_EXPORTER_REVISION="$(git rev-parse --short=12 HEAD)" -t prompt-redis-exporter .
#   docker build --target night -t prompt-redis-night .
#
# Nothing here needs BuildKit, so that buildah builds the same file: tests/deploy/image.sh proves it that way, with
# Debian 12's buildah 1.28. That is also why dependencies are cached as a layer and not in a cache mount: a layer
# travels with every builder and with a CI cache, a cache mount stays on the machine that made it.

# Dependencies: compiled again only when Cargo.toml or Cargo.lock change.
FROM docker.io/library/rust:1.95-slim-bookworm AS dependencies
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
# Our own code is an empty program here. Cargo refuses a manifest that names a bench, test or example without a file,
# so those sections go; the stages below keep this manifest.
RUN sed -i -E '/^\[\[(bench|test|example)\]\]/,/^$/d' Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin prompt-redis-exporter

FROM dependencies AS build
COPY build.rs ./
COPY src src
# The image's build has no .git to ask. Declared this late because a new commit must not cost the layers above.
ARG PROMPT_REDIS_EXPORTER_REVISION
# Copied files keep their old dates, and cargo would take the empty program of above for newer.
RUN find src build.rs -type f -exec touch {} + \
    && cargo build --release --locked --bin prompt-redis-exporter

# The simulated night needs the dependencies of tests and examples too.
FROM dependencies AS night-dependencies
RUN mkdir examples \
    && echo 'fn main() {}' > examples/observing_night.rs \
    && cargo build --release --locked --example observing_night

FROM night-dependencies AS night-build
COPY build.rs ./
COPY src src
COPY examples examples
RUN find src build.rs examples -type f -exec touch {} + \
    && cargo build --release --locked --example observing_night

# Both images are a C library, certificates and one program: no shell, no package manager, nothing to write to.
FROM gcr.io/distroless/cc-debian12:nonroot AS night
COPY --from=night-build /src/target/release/examples/observing_night /usr/local/bin/observing_night
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/observing_night"]

# The last stage is what a plain `docker build` makes.
FROM gcr.io/distroless/cc-debian12:nonroot AS exporter
ARG PROMPT_REDIS_EXPORTER_REVISION=unknown
ARG PROMPT_REDIS_EXPORTER_VERSION=0.1.0
LABEL org.opencontainers.image.title="prompt-redis-exporter" \
      org.opencontainers.image.description="Prometheus exporter for Redis Streams consumer groups" \
      org.opencontainers.image.source="https://github.com/lsst-dm/prompt-redis-exporter" \
      org.opencontainers.image.documentation="https://github.com/lsst-dm/prompt-redis-exporter/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Rubin Observatory" \
      org.opencontainers.image.version="${PROMPT_REDIS_EXPORTER_VERSION}" \
      org.opencontainers.image.revision="${PROMPT_REDIS_EXPORTER_REVISION}"
COPY --from=build /src/target/release/prompt-redis-exporter /usr/local/bin/prompt-redis-exporter
# A number, because Kubernetes cannot tell from a name that a user is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 10036
# No HEALTHCHECK: it runs inside, and there is nothing inside that could ask /-/healthy, no shell, no curl. Kubernetes asks
# from outside, as compose's Prometheus does.
ENTRYPOINT ["/usr/local/bin/prompt-redis-exporter"]
