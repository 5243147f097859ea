#!/bin/bash
# Runs every fuzzer of the tree for a while each: scripts/fuzz.sh [TIME]
set -eu
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:--mod=mod}"
time=${1:-20s}
for pkg in $(go list ./...); do
	for f in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "== $pkg $f"
		go test -run '^$' -fuzz "^$f\$" -fuzztime "$time" "$pkg"
	done
done
