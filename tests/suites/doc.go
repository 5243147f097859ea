// Command suites runs test suites that others wrote in sandboxes, and natively to compare: CPython's tests of the operating system, Go's standard
// library, the kernel's selftests, the tests of busybox, coreutils, bash and perl, and stress-ng. Programs and sources are Debian's and the Go toolchain's.
//
//	go run ./tests/suites -suite cpython -runtimes host,runsc,moat [-run REGEX] [-doc docs/suites.md]
//
// A suite is cut into units: each runs by itself under a time limit in a fresh sandbox whose root is the host's with what is written staying inside; the
// native run has the same, by namespaces and an overlay. A unit prints the results of its tests by name. What passes natively and not in moat must be
// in known/SUITE.txt with its reason, or the command fails; a reason that nothing needed is told too. Results are kept below -dir: -runtimes moat compares with the last
// native run. It has to run as root.
package main
