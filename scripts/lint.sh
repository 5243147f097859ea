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
mkdir -p build
go build -o build/ gvisor.dev/gvisor/tools/checklocks/cmd/checklocks honnef.co/go/tools/cmd/staticcheck
tools=$PWD/build
for module in . cmd/containerd-shim-moat-v1; do
	(
		cd $module
		go vet ./... || exit 1
		"$tools/staticcheck" ./... || exit 1
		# Annotations only: not what the analyzer guesses. It counts field declarations, so no "a, b T" before an annotated field.
		go vet -vettool="$tools/checklocks" -inferred=false -wrappers=false ./...
	) || fail=1
done
exit $fail
