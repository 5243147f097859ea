#!/bin/bash
# Installs runsc of the Go module proxy, the peer that moat is compared with, and prints its path.
set -eu
cd "$(dirname "$0")/.."
# Pinned so that runs of different days compare with the same peer.
version=v0.0.0-20260905035102-160fafc42237
runsc=build/peers/$version/runsc
if [ ! -x "$runsc" ]; then
	# With cgo it does not start outside gVisor's own image.
	GOBIN="$PWD/$(dirname "$runsc")" CGO_ENABLED=0 go install "gvisor.dev/gvisor/runsc@$version" >&2
fi
echo "$PWD/$runsc"
