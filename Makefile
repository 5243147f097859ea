# See BUILD.md for what each target does and how long it takes.
GO      ?= go
PLATFORMS ?= trap ptrace
FUZZTIME ?= 20s
comma := ,
export GOFLAGS ?= -mod=mod

.PHONY: all build shim run test unit workloads oci oci-suites containerd net vm lint size fuzz bench bench-quick bench-net clean deps conformance fuzz-raw soak fuzz-diff suites

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/moat ./cmd/moat

# containerd's shim for moat, a module of its own.
shim:
	CGO_ENABLED=0 $(GO) build -C cmd/containerd-shim-moat-v1 -trimpath -ldflags "-s -w" -o ../../bin/ .

# A program of the host on moat's kernel.
run: build
	./bin/moat do --platform=$(firstword $(PLATFORMS)) -- sh -c 'uname -a; id; echo "processes: $$(ls -d /proc/[0-9]* | wc -l)"; cat /etc/os-release | head -1'

deps:
	./scripts/deps.sh

# Everything that CI runs: unit tests, the rules of the tree, and the workloads that take less than a minute.
test: deps build shim lint
	GO=$(GO) ./scripts/test.sh

unit:
	$(GO) test $$($(GO) list ./... | grep -v /tests/)

# Linux, errno for errno: C programs on the host and in a sandbox; writes docs/conformance.md.
conformance: deps
	$(GO) run ./tests/conformance -v -doc docs/conformance.md -platform $(subst $() $(),$(comma),$(PLATFORMS))

# The long workloads too, and what TestLanguages runs (but for servers, which a package would start).
workloads: deps build
	./scripts/deps.sh ruby php-cli rustc ghc ocaml-nox erlang-base mono-mcs mono-runtime sbcl luajit r-base-core swi-prolog-nox tcl expect fpc gnat zsh fish mksh tcsh \
		python3-numpy python3-pandas python3-zmq python3-uvloop python3-aiohttp openmpi-bin libopenmpi-dev valgrind xvfb xterm chromium
	MOAT_LONG=1 MOAT_PLATFORMS="$(PLATFORMS)" $(GO) test -count=1 -timeout 60m -v ./tests/workloads

# stress-ng for MINUTES on the first of PLATFORMS, SECONDS a stressor; or only STRESSORS.
MINUTES ?= 60
SECONDS ?= 4
soak: deps
	MOAT_SOAK=$(MINUTES) MOAT_SOAK_SECONDS=$(SECONDS) MOAT_STRESSORS="$(STRESSORS)" MOAT_PLATFORMS="$(firstword $(PLATFORMS))" $(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' ./tests/workloads
# The first of PLATFORMS, for tests that run on one at a time and take the default if none is named.
OCI_PLATFORM = MOAT_PLATFORMS="$(filter-out trap,$(firstword $(PLATFORMS)))"

# moat as Docker's runtime: installs Docker from Debian and starts a daemon of its own by hand. The long tests of the verbs, too.
oci: deps build
	./scripts/deps.sh docker.io iproute2 iptables podman dnsmasq-base debootstrap
	$(OCI_PLATFORM) MOAT_DOCKER=1 MOAT_PODMAN=1 MOAT_LONG=1 $(GO) test -count=1 -timeout 30m -v ./tests/oci

# moat's shim under a containerd that is started by hand: installs it from Debian, and builds crictl and critest from the Go module proxy.
containerd: deps build shim
	./scripts/deps.sh containerd containernetworking-plugins iproute2 procps nginx-light
	./scripts/crictl.sh
	$(OCI_PLATFORM) MOAT_CONTAINERD=1 $(GO) test -count=1 -timeout 40m -v -run 'TestContainerd|TestCRI' ./tests/oci

# Other people's tests of OCI runtimes, on moat and, where they are installed, on runc and crun; what fails must be in tests/oci/suites/known.txt.
oci-suites: deps build
	./scripts/deps.sh runc crun bats jq gawk
	$(GO) run ./tests/oci/suites -suite runtime-tools -runtimes bin/moat,runc,crun
	$(GO) run ./tests/oci/suites -suite runc

# Other people's tests of systems: SUITE is one or more of cpython, go, selftests, busybox, coreutils, bash, perl, stress. As root.
SUITE    ?= cpython
RUNTIMES ?= host,runsc,moat
suites: build
	./scripts/suites.sh -suite $(SUITE) -runtimes $(RUNTIMES) -doc docs/suites.md

# Real servers and clients, installed from Debian, over loopback and over a veth to the host.
net: deps build
	./scripts/deps.sh nginx-light wrk redis-server memcached postgresql iperf3 openssh-server openssh-client rsync curl dnsmasq-base bind9-dnsutils
	MOAT_NET=1 MOAT_LONG=1 MOAT_PLATFORMS="$(PLATFORMS)" $(GO) test -count=1 -timeout 30m -v -run 'TestServers|Net' ./tests/workloads

lint:
	./scripts/lint.sh

# Debian's kernel in QEMU, and moat in that.
vm:
	GO=$(GO) ./scripts/vm.sh

size:
	$(GO) run ./tests/rules/size

fuzz:
	./scripts/fuzz.sh $(FUZZTIME)

# Beside native, runc (of Debian) and runsc (of the Go proxy, at the version of scripts/runsc.sh); writes docs/bench.
bench: build
	./scripts/deps.sh nginx-light wrk redis-server iperf3 iproute2
	./scripts/bench.sh -rounds 5 -out docs/bench

bench-quick: build
	./scripts/bench.sh -rounds 1 -parts calls -platforms trap

# The network alone: servers in containers, and natively, with their clients outside.
bench-net: build
	./scripts/deps.sh nginx-light wrk redis-server iperf3 iproute2
	./scripts/bench.sh -rounds 3 -parts network -platforms trap

# Random system calls on moat alone: it must answer, never die, never grow.
fuzz-raw:
	$(GO) run ./tests/fuzz -raw -seconds $(or $(SECONDS),60) -seed $(or $(SEED),1) -platform $(firstword $(PLATFORMS))

# The same programs of calls on the host and in a sandbox, which must answer alike.
fuzz-diff: deps
	$(GO) run ./tests/fuzz -diff -seconds $(or $(SECONDS),60) -seed $(or $(SEED),1) -workers 6 -platform $(firstword $(PLATFORMS))


clean:
	rm -rf bin build
