# make demo    a pair fails over before your eyes, in about a minute
# make lab     the same pair to play with; make lab-down ends it
# make test    vet, unit tests, tests against real HAProxy, whole-system tests
# make test-long    whole-system tests that take minutes more
# make lint    golangci-lint, built from source the first time
# make bench   every kind of failure measured, with keepalived beside it
# make scenarios      every row of the two-site deployment, played and printed
# make test-activemq  its broker rows with real ActiveMQ brokers (Java)
# make tune    the lease that tunes itself beside fixed ones (about 90 minutes)
# make soak    random failures for as long as SOAK says (default 10m)
# make upgrade a rolling upgrade from the previous commit, in every order
# make soak-lease, make model   the same for the lease protocol alone
# make test-docker    the image and the compose example on a real Docker engine
# make test-systemd   the units under a real systemd, in containers
# make test-kubernetes  the manifests, decoded into the types of Kubernetes and reviewed
# make vuln    known vulnerabilities in the code that is called
# make licences, make sbom    what the binary is made of (bin/tandem.cdx.json)
# make build   bin/tandem and bin/pair, bin/hybrid-chat
#
# What is missing is installed when run as root on Debian or Ubuntu; otherwise
# it is named.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The commit goes in by itself, where git can be asked.
VCS     := $(shell git status >/dev/null 2>&1 && echo auto || echo false)
LDFLAGS := -X main.version=$(VERSION)
GO      ?= go
BIN     := bin

# The version of the linter; another one may find other faults.
LINT_VERSION := v2.15.0
LINT         := $(shell $(GO) env GOPATH)/bin/golangci-lint

LAB_TOOLS   := haproxy:haproxy ip:iproute2 nft:nftables
BENCH_TOOLS := $(LAB_TOOLS) keepalived:keepalived
MQ_TOOLS    := $(LAB_TOOLS) java:default-jre-headless activemq:activemq
DOCKER_TOOLS := docker-compose:docker-compose debootstrap:debootstrap
TEST_TOOLS  := $(LAB_TOOLS) gcc:gcc gcc:libc6-dev spin:spin promtool:prometheus shellcheck:shellcheck

# Packages whose tests use the kernel, a real HAProxy or real time: they mostly
# wait, so three go side by side, and no more, lest they starve each other.
LABS         := ./examples/...
REAL         := ./haproxy/... ./lib/vip/...
LONG         := EveryCommandInTheDocsRuns|ThePlanComesTrueInTheLab|ObservingBesideKeepalived|SeveralHAProxys|StrangerKeeps|RollingUpgrade|KeysAreRotated|MovesUnderAMixedLoad|PairOverIPv6|ThePageThroughAFailover|FollowersFollow|RestartInPlace|TheClockIsSet|BootClocksHoursApart
REAL_PATTERN := ^tandem/(examples|haproxy|lib/vip)(/|$$)

TESTFLAGS ?= -race -shuffle=on -timeout 12m

.NOTPARALLEL:
.PHONY: all build demo lab lab-down test test-long test-unit test-real vet lint bench tune soak upgrade soak-lease model scenarios test-activemq test-docker test-systemd test-kubernetes vuln licences sbom clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -buildvcs=$(VCS) -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tandem ./sidecar
	CGO_ENABLED=0 $(GO) build -buildvcs=false -o $(BIN)/pair ./examples/pair
	CGO_ENABLED=0 $(GO) build -buildvcs=false -o $(BIN)/hybrid-chat ./examples/hybrid-chat

demo: tools-lab build
	@$(BIN)/pair demo

lab: tools-lab build
	@$(BIN)/pair lab

lab-down:
	@$(BIN)/pair do down

bench: tools-bench build
	$(BIN)/pair bench $(BENCH)

# Shorter, or a part of it: TUNE="--for 1m --leases auto,300ms --trials power".
tune: tools-lab build
	$(BIN)/pair tune $(TUNE)

# Choose chapters with SCENARIOS="--only sites,brokers".
scenarios: tools-lab build
	$(BIN)/hybrid-chat scenarios $(SCENARIOS)

test-activemq: tools-mq
	HYBRIDCHAT_TEST_ACTIVEMQ=1 $(GO) test -run TestActiveMQ -v -timeout 8m ./examples/hybrid-chat

# The images stand on those that `bases` makes where they cannot be pulled.
test-docker:
	@if ! docker info >/dev/null 2>&1; then echo '*** IMAGES AND COMPOSE ARE LEFT OUT: no Docker engine here ***'; exit 0; fi; set -e; \
	.ci/tools $(DOCKER_TOOLS); context=$$(mktemp -d); trap 'rm -rf '$$context EXIT; \
	examples/compose/bases; examples/compose/context $$context; examples/compose/build $$context; \
	TANDEM_TEST_DOCKER=1 $(GO) test -count=1 -v -timeout 20m ./examples/compose

# Machines whose process 1 is systemd, made by `base`.
test-systemd:
	@if ! docker info >/dev/null 2>&1; then echo '*** THE UNITS ARE LEFT OUT: no Docker engine here ***'; exit 0; fi; set -e; \
	.ci/tools $(DOCKER_TOOLS); $(MAKE) --no-print-directory build; examples/systemd/try.sh $(BIN)/tandem

# A module of its own: what it needs is no dependency of tandem's.
test-kubernetes:
	cd examples/kubernetes/validate && $(GO) test -count=1 ./...

vuln:
	@.ci/vuln || [ $$? = 75 ]

licences:
	@.ci/licences

# The file is there whole, or as it was.
sbom: build
	@set -e; new=$$(mktemp -d $(BIN)/sbom.XXXXXX); trap 'rm -rf '$$new EXIT; .ci/licences > $$new/licences; \
	$(GO) run ./sidecar/sbom $(BIN)/tandem < $$new/licences > $$new/bom; mv $$new/bom $(BIN)/tandem.cdx.json

SOAK ?= 10m
soak: tools-lab build
	$(BIN)/pair soak --for $(SOAK)

# OLD is the commit to come from: make upgrade OLD=v1.0.0
OLD ?= HEAD~1
upgrade: tools-lab
	TANDEM_TEST_LONG=1 TANDEM_TEST_UPGRADE=all TANDEM_TEST_OLD=$(OLD) $(GO) test -run TestRollingUpgrade -v -timeout 30m ./examples/pair

# The lease alone against its adversary, and its model with three ballots.
soak-lease:
	TANDEM_TEST_SOAK=$(SOAK) $(GO) test -run 'TestNoTwoHolders|TestMutantsFail' -v -timeout 0 ./lib/lease

model: tools-test
	TANDEM_TEST_MODEL=full $(GO) test -run TestModel -v -timeout 60m ./lib/lease

test: tools-test vet test-unit test-real

# What make test has no time for: the plan that comes true, strangers, several
# HAProxys, keepalived beside, moves under a mixed load, keys, upgrades, IPv6,
# thirty followers, the page in a browser.
test-long: tools-long
	TANDEM_TEST_LONG=1 $(GO) test $(TESTFLAGS) -timeout 40m -v -run '$(LONG)' ./examples/pair
	TANDEM_TEST_LONG=1 $(GO) test $(TESTFLAGS) -timeout 40m -v -run 'TestCuts|TestApart' ./examples/hybrid-chat

vet:
	$(GO) vet ./...

test-unit:
	$(GO) test $(TESTFLAGS) $$($(GO) list ./... | grep -vE '$(REAL_PATTERN)')

test-real:
	@$(GO) run ./examples/pair able || echo '*** WHOLE-SYSTEM TESTS ARE LEFT OUT: no network namespaces here ***'
	$(GO) test -p 3 $(TESTFLAGS) $(LABS) $(REAL)

lint: $(LINT)
	@if [ -x $(LINT) ]; then $(LINT) run ./...; else \
		echo '*** LINT IS LEFT OUT: golangci-lint $(LINT_VERSION) could not be built ***'; fi

# A linter of another version, or none: built from source, which takes minutes.
$(LINT): FORCE
	@if ! $(LINT) version 2>/dev/null | grep -qw '$(LINT_VERSION:v%=%)'; then \
		echo 'building golangci-lint $(LINT_VERSION); this takes some minutes, once'; \
		$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) || true; fi

.PHONY: FORCE tools-lab tools-bench tools-test tools-mq
FORCE:
tools-lab:
	@.ci/tools $(LAB_TOOLS)
tools-bench:
	@.ci/tools $(BENCH_TOOLS)
tools-long:
	@.ci/tools $(TEST_TOOLS) keepalived:keepalived chromium:chromium
tools-mq:
	@.ci/tools $(MQ_TOOLS)
tools-test:
	@.ci/tools $(TEST_TOOLS)

clean:
	rm -rf $(BIN)
