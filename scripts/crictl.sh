#!/bin/bash
# Builds crictl and critest, the Kubernetes project's tools for CRI runtimes, from the Go module proxy into build/cri-tools.
set -eu
cd "$(dirname "$0")/.."
version=v1.30.0
out=$PWD/build/cri-tools
[ -x "$out/crictl-$version" ] && exit 0
# Its go.mod replaces modules, which `go install` refuses: it is built in a copy.
dir=$(cd "$(mktemp -d)" && GOFLAGS=-mod=mod go mod download -json sigs.k8s.io/cri-tools@$version | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
src=$(mktemp -d)
trap 'rm -rf "$src"' EXIT
cp -r "$dir/." "$src"
chmod -R u+w "$src"
mkdir -p "$out"
cd "$src"
export CGO_ENABLED=0 GOFLAGS=-mod=mod
go test -c -o "$out/critest" ./cmd/critest
go build -o "$out/crictl-$version" ./cmd/crictl
ln -sf crictl-$version "$out/crictl"
