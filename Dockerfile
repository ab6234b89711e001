# tandem in a container: a static binary on a small base with a shell, because
# hooks are shell commands. Both images can be replaced by a mirror's:
#
#   docker build --build-arg GO_IMAGE=... --build-arg BASE_IMAGE=... -t tandem .
#
# It needs the network of the host (or a network in which it may announce the
# virtual IP), NET_ADMIN and NET_RAW for virtual IPs, and HAProxy's socket:
#
#   docker run --network host --cap-drop ALL --cap-add NET_ADMIN --cap-add NET_RAW \
#     -v /run/haproxy:/run/haproxy --env-file tandem.env tandem
ARG GO_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/tandem ./sidecar

FROM ${BASE_IMAGE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/tandem /usr/local/bin/tandem
# Gossip (UDP and TCP), and the API, which listens on loopback unless told
# otherwise.
EXPOSE 7946/udp 7946/tcp 8405/tcp
# SIGTERM hands over what this node holds before it ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tandem"]
CMD ["run"]
