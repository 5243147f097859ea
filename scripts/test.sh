#!/bin/bash
# Runs the tests. Where the host's kernel installs no seccomp filters (see tests/preflight), those that need one run in a virtual machine as far as they can
# (scripts/vm.sh), and the others here.
set -eu
GO=${GO:-go}
mkdir -p build
CGO_ENABLED=0 "$GO" build -o build/preflight ./tests/preflight
if build/preflight 2>build/preflight.err; then
	exec "$GO" test -timeout 15m ./...
fi
cat build/preflight.err
echo "test.sh: the tests of sandboxes are NOT run on this host; a smaller set of them runs in a virtual machine"
"$GO" test -timeout 15m $("$GO" list ./... | grep -v -E '/tests/(workloads|oci|conformance|fuzz)|/platform|/fsgofer$|/sentry/fs/(gofer|proc)$')
exec ./scripts/vm.sh
