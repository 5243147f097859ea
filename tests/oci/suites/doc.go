// Command suites runs other people's tests of OCI runtimes on moat, and on others to compare: the validation programs of
// opencontainers/runtime-tools, and runc's own tests, which are written for bats. Both come from the Go module proxy and are built in DIR.
//
//	go run ./tests/oci/suites -suite runtime-tools -runtimes bin/moat,runc
//
// It prints a table, and what failed. What fails on moat must be in known.txt with its reason, or the command fails; a reason that nothing needed
// any more is told too. It has to run as root. The host's cgroups are seen by the tests through a file system of their own, so that what they make beside
// the controllers' mounts goes away with them, and without version 2, which older runtimes refuse to see beside version 1.
package main
