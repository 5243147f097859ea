#!/bin/bash
# Runs tests/bench with the peers that it compares with: runc from Debian, runsc from the Go proxy at a pinned version. As root.
set -eu
cd "$(dirname "$0")/.."
for p in runc gcc make git sqlite3 python3; do
	command -v $p >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends $p; }
done
exec go run ./tests/bench -moat bin/moat -runsc "$(./scripts/runsc.sh)" -runc "$(command -v runc)" "$@"
