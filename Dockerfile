# The networked stack's image: one binary, no shell, no root.
#
# Run it with a read-only root file system; /data is all it writes to (the last good ruleset, and the whole embedded
# stack where it is used). compose.yaml shows how.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# Statements are checked against .sqlx, so no database is needed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    SQLX_OFFLINE=true cargo build --release --locked --bin cartwright \
    && install -D target/release/cartwright /image/usr/local/bin/cartwright \
    && install -d /image/data

# glibc, certificates and time zones; nothing to run but what is copied in.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build /image/usr/local/bin/cartwright /usr/local/bin/cartwright
ENV CARTWRIGHT_DATA_DIR=/data \
    CARTWRIGHT_LISTEN=0.0.0.0:8080
# The operator listener asks for no key and stays on 127.0.0.1 unless CARTWRIGHT_OPERATOR_LISTEN says otherwise.
USER 65532:65532
VOLUME /data
EXPOSE 8080
# Asks the operator listener of this container, so nothing else has to be in the image.
HEALTHCHECK --interval=5s --timeout=4s --start-period=15s --retries=3 CMD ["/usr/local/bin/cartwright", "health"]
ENTRYPOINT ["/usr/local/bin/cartwright"]
CMD ["serve"]
