#!/bin/bash
# Installs what the tests need from Debian's packages: only what is missing, and only as root on a Debian system.
set -eu
need=(bash coreutils tar xz-utils gzip git sqlite3 gcc libc6-dev make python3 perl tmux debootstrap dpkg-dev util-linux openssl iproute2 iputils-ping stress-ng redis-server busybox-static passt slirp4netns iptables strace gdb bubblewrap tini s6 runc crun lsof libcap2-bin procps "$@")
missing=()
for p in "${need[@]}"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
# These have other sources than Debian's packages on many machines: what counts is the command.
command -v node >/dev/null || missing+=(nodejs)
command -v javac >/dev/null || missing+=(default-jdk-headless)
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
	echo "deps.sh: not a Debian system; please install: ${missing[*]}" >&2
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "deps.sh: not root; please install: ${missing[*]}" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"
