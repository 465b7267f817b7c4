# versitygw: S3 over a folder, with real signatures.  For trying Troupe on one machine; take a service or MinIO, Ceph, … beyond.
FROM golang:1.26-bookworm AS build
RUN CGO_ENABLED=0 go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

FROM debian:12-slim
RUN useradd --system --uid 10002 --user-group --home-dir /data --create-home --shell /usr/sbin/nologin s3
COPY --from=build /go/bin/versitygw /usr/local/bin/versitygw
COPY deploy/s3.sh /usr/local/bin/s3
USER 10002:10002
WORKDIR /data
VOLUME /data
EXPOSE 9000
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["s3", "health"]
ENTRYPOINT ["s3"]
