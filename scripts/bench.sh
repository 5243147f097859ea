#!/bin/bash
# Runs tests/bench with the peers that it compares with: runc from Debian, runsc from the Go proxy at a pinned version. As root.
set -eu
cd "$(dirname "$0")/.."
# Pinned so that runs of different days compare with the same peer.
runsc_version=v0.0.0-20260905035102-160fafc42237
runsc=build/peers/$runsc_version/runsc
if [ ! -x "$runsc" ]; then
	# With cgo it does not start outside gVisor's own image.
	GOBIN="$PWD/$(dirname "$runsc")" CGO_ENABLED=0 go install "gvisor.dev/gvisor/runsc@$runsc_version"
fi
for p in runc gcc make git sqlite3 python3; do
	command -v $p >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends $p; }
done
exec go run ./tests/bench -moat bin/moat -runsc "$PWD/$runsc" -runc "$(command -v runc)" "$@"
