#!/bin/bash
# Runs tests/suites, with runsc if it is asked for. As root.
set -eu
cd "$(dirname "$0")/.."
case " $* " in *runsc*) set -- "$@" -runsc "$(./scripts/runsc.sh)";; esac
exec go run ./tests/suites "$@"
