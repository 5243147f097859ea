package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func init() {
	suites["selftests"] = &suite{
		about:    "the kernel's selftests of system calls (tools/testing/selftests of Debian's linux-source-6.1)",
		packages: []string{"linux-source-6.1", "gcc", "libc6-dev", "libc-dev-bin", "make", "rsync", "libmnl-dev", "libcap-dev", "libcap-ng-dev", "libpopt-dev", "libnuma-dev", "bc", "xz-utils"},
		prepare:  selftestUnits,
		parse:    parseSelftest,
	}
}

// selftests are directories with the programs in them, built or scripts, that are run; arguments follow after colons.
var selftests = []struct{ dir, programs string }{
	{"futex/functional", "futex_wait_timeout futex_wait_wouldblock futex_wait_uninitialized_heap futex_wait_private_mapped_file futex_wait futex_requeue futex_waitv " +
		"futex_requeue_pi futex_requeue_pi_mismatched_ops futex_requeue_pi_signal_restart"},
	{"timers", "posix_timers nanosleep inconsistency-check:-t:1 threadtest:-t:2:-n:4 mqueue-lat rtcpie"}, // the others set the clock, or measure
	{"clone3", "clone3 clone3_clear_sighand clone3_set_tid clone3_cap_checkpoint_restore"},
	{"pidfd", "pidfd_test pidfd_fdinfo_test pidfd_open_test pidfd_poll_test pidfd_wait pidfd_getfd_test pidfd_setns_test"},
	{"openat2", "openat2_test resolve_test rename_attack_test"},
	{"rseq", "basic_test basic_percpu_ops_test param_test"},
	{"sigaltstack", "sas"},
	{"splice", "default_file_splice_read.sh short_splice_read.sh"},
	{"filesystems/epoll", "epoll_wakeup_test"},
	{"filesystems", "devpts_pts"},
	{"membarrier", "membarrier_test_single_thread membarrier_test_multi_thread"},
	{"core", "close_range_test"},
	{"mqueue", "mq_open_tests"},
	{"seccomp", "seccomp_bpf"},
	{"ptrace", "get_syscall_info peeksiginfo vmaccess"},
	{"kcmp", "kcmp_test"},
	{"memfd", "memfd_test"},
	{"mincore", "mincore_selftest"},
	{"capabilities", "test_execve"},
	{"exec", "execveat non-regular null-argv recursion-depth binfmt_script.py"},
	{"proc", "fd-001-lookup fd-002-posix-eq proc-self-map-files-001 proc-self-syscall proc-self-wchan proc-tid0 proc-uptime-001 proc-uptime-002 read self thread-self " +
		"setns-dcache setns-sysvipc proc-loadavg-001 proc-multiple-procfs proc-subset-pid"},
	{"pid_namespace", "regression_enomem"},
	{"tmpfs", "bug-link-o-tmpfile"},
}

func selftestUnits(dir string) (us []unit, err error) {
	root := filepath.Join(dir, "linux", "tools", "testing", "selftests")
	if err := os.MkdirAll(filepath.Join(dir, "linux"), 0o755); err != nil {
		return nil, err
	}
	script := "tar -xf /usr/src/linux-source-6.1.tar.xz --strip-components=1\nmake -s headers\n"
	for _, s := range selftests {
		// Of some, one program does not build with Debian's headers, and is missing in the results.
		script += "make -k -s -C tools/testing/selftests/" + s.dir + " || true\n"
	}
	// What a sandbox copies up need not be large.
	if err := once(filepath.Join(dir, "linux"), script+"find . -name '*.o' -delete\n"); err != nil {
		return nil, err
	}
	for _, s := range selftests {
		var have []string
		for _, p := range strings.Fields(s.programs) {
			name, _, _ := strings.Cut(p, ":")
			if _, err := os.Stat(filepath.Join(root, s.dir, name)); err != nil {
				fmt.Fprintf(os.Stderr, "suites: %s/%s did not build\n", s.dir, name)
				continue
			}
			have = append(have, "'"+strings.ReplaceAll(p, ":", " ")+"'")
		}
		us = append(us, unit{name: s.dir, dir: filepath.Join(root, s.dir), timeout: longest,
			script: "for p in " + strings.Join(have, " ") + "; do echo; echo \"@@ ${p%% *}\"; timeout -k 1 60 ./$p </dev/null; s=$?; echo; echo \"@@ ${p%% *} ends: $s\"; done"})
	}
	return us, nil
}

var (
	programLine = regexp.MustCompile(`(?m)^@@ (\S+)( ends: ([0-9]+))?$`)
	tapLine     = regexp.MustCompile(`(?m)^\s*(?:# )?(ok|not ok) +([0-9]+) *-? *(.*?)\s*$`)
	number      = regexp.MustCompile(`0x[0-9a-f]+|[0-9]+`)
)

// parseSelftest reads the lines of the Test Anything Protocol of each program; for one that has none, or says ok and fails, its status is the result. What varies in
// a test's name is left out.
func parseSelftest(out []byte) (o outcome) {
	marks := programLine.FindAllSubmatchIndex(out, -1)
	for i, m := range marks {
		if m[6] >= 0 { // the end of one
			continue
		}
		name := string(out[m[2]:m[3]])
		if i+1 == len(marks) || marks[i+1][6] < 0 || string(out[marks[i+1][2]:marks[i+1][3]]) != name {
			o.set(name, failed)
			o.Broken = "died or timed out"
			continue
		}
		end := marks[i+1]
		status := string(out[end[6]:end[7]])
		lines := tapLine.FindAllSubmatch(out[m[1]:end[0]], -1)
		bad := false
		for _, l := range lines {
			what, directive, _ := bytes.Cut(l[3], []byte("#"))
			text := name + ": " + string(l[2]) + " " + number.ReplaceAllString(string(bytes.TrimSpace(what)), "N")
			switch {
			case bytes.Contains(bytes.ToUpper(directive), []byte("SKIP")):
				o.set(text, skipped)
			case string(l[1]) == "ok":
				o.set(text, ok)
			default:
				bad = true
				o.set(text, failed)
			}
		}
		switch {
		case status == "4":
			o.set(name, skipped)
		case status != "0" && !bad:
			o.set(name, failed)
		case status == "0" && len(lines) == 0:
			o.set(name, ok)
		}
	}
	return o
}
