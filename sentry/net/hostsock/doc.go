// Package hostsock has sockets of AF_INET and AF_INET6 that are the host kernel's (`--network host`): each socket of the container is one of the sentry's
// process, in the network namespace that this is in. The container's own netstack and all that it isolates is not in the way; the sentry's filter is wider
// by the calls below (Rules in sentry/boot/filter). It is opt-in for that.
//
// The kinds are TCP, UDP and ICMP's datagram sockets. Raw and packet sockets are not there (EPERM), and neither is what needs rights on the host: the sentry
// has none, so that ports below the host's net.ipv4.ip_unprivileged_port_start are EACCES even for the container's root. Options are passed on if
// Options names them, control messages if sendable does.
//
// Bytes of streams go between the host's kernel and the guest's pages without a copy here; datagrams, which must be moved by one call, are copied once.
//
// Locks: Net.mu guards the list of sockets and is a leaf. A sock does not change after New
// but for rdShut.
package hostsock
