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
go run honnef.co/go/tools/cmd/staticcheck ./... || fail=1
mkdir -p build
go build -o build/checklocks gvisor.dev/gvisor/tools/checklocks/cmd/checklocks
go vet -vettool="$PWD/build/checklocks" ./... || fail=1
exit $fail
