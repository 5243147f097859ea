#!/bin/bash
# gofmt, go vet, staticcheck, and the lock analyzer (+checklocks annotations).
set -eu
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:--mod=mod}"
fail=0
unformatted=$(gofmt -l $(git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do [ -e "$f" ] && echo "$f"; done))
if [ -n "$unformatted" ]; then
	echo "not formatted by gofmt:" $unformatted
	fail=1
fi
go vet ./... || fail=1
go tool staticcheck ./... || fail=1
mkdir -p build
go build -o build/checklocks gvisor.dev/gvisor/tools/checklocks/cmd/checklocks
# Annotations only: not what the analyzer guesses. It counts field declarations, so no "a, b T" before an annotated field.
go vet -vettool="$PWD/build/checklocks" -inferred=false -wrappers=false ./... || fail=1
exit $fail
