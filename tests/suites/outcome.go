package main

import "regexp"

const (
	ok      = "ok"
	failed  = "failed"
	skipped = "skipped"
)

// outcome is what a unit said.
type outcome struct {
	// Tests has each test's result by name.
	Tests map[string]string
	// Broken says why the results are not whole: the unit timed out, or died.
	Broken string `json:",omitempty"`
}

type counts struct{ ok, failed, skipped int }

func (o outcome) count() (c counts) {
	for _, r := range o.Tests {
		switch r {
		case ok:
			c.ok++
		case failed:
			c.failed++
		default:
			c.skipped++
		}
	}
	if o.Broken != "" {
		c.failed++
	}
	return c
}

func (o *outcome) set(name, result string) {
	if o.Tests == nil {
		o.Tests = map[string]string{}
	}
	// Of a test that runs more than once, or has parts, the worst counts.
	if old := o.Tests[name]; old == failed || old == ok && result == skipped {
		return
	}
	o.Tests[name] = result
}

var resultLine = regexp.MustCompile(`(?m)^(PASS|FAIL|SKIP|SKIPPED|UNTESTED|ERROR|XFAIL|XPASS): (.*?)\s*$`)

// parseLines reads the lines of automake's test driver, which busybox's has too.
func parseLines(out []byte) (o outcome) {
	for _, m := range resultLine.FindAllSubmatch(out, -1) {
		switch name := string(m[2]); string(m[1]) {
		case "PASS", "XFAIL":
			o.set(name, ok)
		case "FAIL", "ERROR", "XPASS":
			o.set(name, failed)
		default:
			o.set(name, skipped)
		}
	}
	return o
}

// loop is a script that runs $TEST once for each of the words of tests and prints such a line for its status: 77 is a skipped test, and 99 an error.
func loop(tests, test string) string {
	return "for t in " + tests + "\ndo\n( " + test + "\n) </dev/null >/tmp/out 2>&1\n" +
		"s=$?; case $s in 0) r=PASS;; 77) r=SKIP;; *) r=FAIL; echo \"== $t: $s\"; tail -c 20000 /tmp/out; echo;; esac; echo \"$r: $t\"; done\n"
}
