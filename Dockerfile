# tandem in a container: one static binary, run by an ordinary user.
#
#   docker build -t tandem .                          with a shell, for hooks
#   docker build -t tandem --target minimal .         the binary and nothing else
#
# Beside HAProxy, on the host's network; examples/compose has a whole cluster:
#
#   docker run --network host --read-only --cap-drop ALL \
#     --cap-add NET_ADMIN --cap-add NET_RAW --group-add $(getent group haproxy | cut -d: -f3) \
#     -v /run/haproxy:/run/haproxy -v tandem:/var/lib/tandem --env-file tandem.env tandem
#
# The two capabilities are those of the file: give them to the container of a
# load balancer, and none to a witness. They are ignored under
# no-new-privileges, which must be off on a load balancer.
#
# It takes BuildKit, which is what `docker build` is since Docker 23: the builder
# before it loses a file's capabilities when it copies the file from one stage to
# the next. examples/compose/build knows a way around that.
#
# All images can be replaced by a mirror's. A directory vendor/ (go mod vendor)
# in the context makes the build need no network.
ARG GO_IMAGE=golang:1.26-bookworm
ARG SHELL_IMAGE=debian:bookworm-slim
ARG MINIMAL_IMAGE=scratch

FROM ${GO_IMAGE} AS build
# No other toolchain is fetched, and nothing of the machine gets into the
# binary: the same source, version and commit give the same bytes.
ENV CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false
ARG GOPROXY
WORKDIR /src
COPY . .
RUN [ -d vendor ] || go mod download
ARG VERSION=dev
ARG COMMIT=
RUN go build -trimpath -ldflags "-s -w -buildid= -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /root/tandem ./sidecar \
 && go run -trimpath ./sidecar/setcap /root/tandem
# What both images have beside the binary. Whoever is called nonroot elsewhere is
# so here.
RUN mkdir -p /image/etc/ssl/certs /empty \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && echo 'tandem:x:65532:65532:tandem:/:/sbin/nologin' > /image/etc/passwd \
 && echo 'tandem:x:65532:' > /image/etc/group

# The binary and nothing else: no shell, so no hooks (TANDEM_HOOK_…); webhooks
# work.
FROM ${MINIMAL_IMAGE} AS minimal
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /empty /run/tandem
COPY --from=build --chown=65532:65532 /empty /var/lib/tandem
COPY --from=build /root/tandem /usr/local/bin/tandem
USER 65532:65532
# What a read-only root leaves writable.
VOLUME ["/run/tandem", "/var/lib/tandem"]
ENV PATH=/usr/local/bin TANDEM_STATE_DIR=/var/lib/tandem
# Gossip (UDP and TCP), and the API, which listens on loopback unless told
# otherwise.
EXPOSE 7946/udp 7946/tcp 8405/tcp
# SIGTERM hands over what this node holds before it ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["/usr/local/bin/tandem", "health"]
ENTRYPOINT ["/usr/local/bin/tandem"]
CMD ["run"]

# The same on a system with a shell. Hooks that need more programs stand on this:
#   FROM tandem
#   USER root
#   RUN apt-get update && apt-get install -y --no-install-recommends curl jq
#   USER 65532
FROM ${SHELL_IMAGE} AS shell
RUN echo 'tandem:x:65532:65532:tandem:/var/lib/tandem:/bin/sh' >> /etc/passwd \
 && echo 'tandem:x:65532:' >> /etc/group
COPY --from=build /image/etc/ssl /etc/ssl
COPY --from=build --chown=65532:65532 /empty /run/tandem
COPY --from=build --chown=65532:65532 /empty /var/lib/tandem
COPY --from=build /root/tandem /usr/local/bin/tandem
USER 65532:65532
VOLUME ["/run/tandem", "/var/lib/tandem"]
ENV TANDEM_STATE_DIR=/var/lib/tandem
EXPOSE 7946/udp 7946/tcp 8405/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["/usr/local/bin/tandem", "health"]
ENTRYPOINT ["/usr/local/bin/tandem"]
CMD ["run"]
