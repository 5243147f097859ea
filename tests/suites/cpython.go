package main

import (
	"bytes"
	"encoding/xml"
	"path/filepath"
	"strings"
	"time"
)

func init() {
	suites["cpython"] = &suite{
		about:    "CPython 3.11's tests that exercise the operating system and the network (Debian's libpython3.11-testsuite), `python3 -m test`, without those of vsocks and UDP-Lite",
		packages: []string{"python3.11", "libpython3.11-testsuite", "openssl"},
		prepare:  cpythonUnits,
		parse:    parseJUnit,
	}
}

var cpythonModules = strings.Fields(`test_os test_posix test_subprocess test_signal test_socket test_select test_selectors test_epoll test_mmap test_fcntl
	test_pty test_threading test_multiprocessing_fork test_multiprocessing_forkserver test_multiprocessing_spawn test_multiprocessing_main_handling
	test_tempfile test_shutil test_pathlib test_time test_resource test_eintr test_io test_ssl test_httplib test_ftplib`)

// cpythonUnits: a module each; test_asyncio is a package, and each of its modules a unit.
func cpythonUnits(string) (us []unit, err error) {
	modules := cpythonModules
	files, err := filepath.Glob("/usr/lib/python3.11/test/test_asyncio/test_*.py")
	for _, f := range files {
		if !strings.Contains(f, "windows") {
			modules = append(modules, "test_asyncio."+strings.TrimSuffix(filepath.Base(f), ".py"))
		}
	}
	// Where the host is a virtual machine, vsocks reach its hypervisor, and the test hangs. UDP-Lite, which newer kernels do not have and netstack
	// does not know, is not asked for by the tests but taken to be there: one that fails ends the module.
	for _, m := range modules {
		us = append(us, unit{name: m, dir: "/tmp", timeout: 12 * time.Minute,
			script: "/usr/bin/python3.11 -m test -v --timeout 600 --ignore '*VSOCK*' --ignore '*UDPLITE*' --junit-xml /tmp/result.xml " + m + "; cat /tmp/result.xml"})
	}
	return us, err
}

// parseJUnit reads the XML at the end of the output.
func parseJUnit(out []byte) (o outcome) {
	start := bytes.LastIndex(out, []byte("<testsuites"))
	if start < 0 {
		return outcome{Broken: "no results: it died or timed out"}
	}
	var doc struct {
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Skipped *struct{} `xml:"skipped"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(out[start:], &doc); err != nil {
		return outcome{Broken: "results: " + err.Error()}
	}
	for _, c := range doc.Cases {
		switch {
		case c.Failure != nil || c.Error != nil:
			o.set(c.Name, failed)
		case c.Skipped != nil:
			o.set(c.Name, skipped)
		default:
			o.set(c.Name, ok)
		}
	}
	return o
}
