package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func init() {
	build := []string{"gcc", "libc6-dev", "make", "dpkg-dev", "xz-utils", "bzip2", "patch"}
	suites["busybox"] = &suite{about: "busybox's testsuite without bc's, which only compute (Debian's source, with its configuration of the package busybox)", packages: build, prepare: busyboxUnits, parse: parseLines}
	suites["coreutils"] = &suite{about: "coreutils' tests, without those of factor, which only compute (Debian's source)", packages: append(build, "gperf", "bison", "acl", "attr", "strace"), prepare: coreutilsUnits, parse: parseLines}
	suites["bash"] = &suite{about: "bash's tests (Debian's source), by an ordinary user at a terminal", packages: append(build, "bison", "locales", "util-linux", "bsdutils"), prepare: bashUnits, parse: parseLines}
	suites["perl"] = &suite{about: "perl's core tests in t/op and t/io (Debian's source); a file counts as one test", packages: build, prepare: perlUnits, parse: parsePerl}
}

func busyboxUnits(dir string) (us []unit, err error) {
	src := filepath.Join(dir, "src")
	if err := source(src, "busybox"); err != nil {
		return nil, err
	}
	// yes '' answers for options that are new.
	err = once(src, `cp debian/config/pkg/deb .config; sed -i 's/^CONFIG_EXTRA_CFLAGS=.*/CONFIG_EXTRA_CFLAGS=""/' .config; (yes '' || true) | make -s oldconfig >/dev/null; make -s -j2; cp busybox busybox_unstripped 2>/dev/null || true`)
	return []unit{{name: "testsuite", dir: filepath.Join(src, "testsuite"), timeout: 10 * time.Minute, script: "rm -f bc* dc*\nbindir=.. tsdir=$PWD sh ./runtest"}}, err
}

// coreutilsUnits: a unit for each directory of tests.
func coreutilsUnits(dir string) (us []unit, err error) {
	src := filepath.Join(dir, "src")
	if err := source(src, "coreutils"); err != nil {
		return nil, err
	}
	if err := once(src, `FORCE_UNSAFE_CONFIGURE=1 ./configure -q --disable-nls --disable-dependency-tracking; make -s -j2`); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(src, "tests"))
	for _, e := range entries {
		if !e.IsDir() || e.Name() == "factor" {
			continue
		}
		us = append(us, unit{name: e.Name(), dir: src, timeout: 15 * time.Minute,
			script: `t=; for f in tests/` + e.Name() + `/*.sh tests/` + e.Name() + `/*.pl; do grep -qF " $f " tests/local.mk || grep -qE "^  $f[[:space:]]" tests/local.mk && t="$t $f"; done
make -s check-TESTS TESTS="$t" VERBOSE=; for f in $t; do l=${f%.*}.log; grep -qE "^(FAIL|ERROR) ${f%.*}" $l 2>/dev/null && { echo "== $f"; tail -n 60 $l; }; done; :`})
	}
	return us, err
}

func bashUnits(dir string) (us []unit, err error) {
	src := filepath.Join(dir, "src")
	if err := source(src, "bash"); err != nil {
		return nil, err
	}
	if err := once(src, `./configure -q --disable-nls; make -s -j2; make -s recho zecho printenv xcase; cp recho zecho printenv xcase tests/; mkdir locales`); err != nil {
		return nil, err
	}
	locales := filepath.Join(src, "locales")
	// Where a locale is not ASCII's superset, localedef warns and fails.
	if err := once(locales, `for l in en_US.UTF-8 de_DE.UTF-8 fr_FR.ISO8859-1:ISO-8859-1 zh_HK.big5hkscs:BIG5-HKSCS ja_JP.SJIS:SHIFT_JIS zh_TW.BIG5 ru_RU.CP1251
do n=${l%:*}; c=${l#*.}; localedef -c -i ${n%.*} -f ${c#*:} ./$n >/dev/null 2>&1 || true; done`); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(src, "tests", "run-*"))
	var names []string
	for _, f := range files {
		if n := filepath.Base(f); n != "run-all" && n != "run-minimal" {
			names = append(names, n)
		}
	}
	test := "cat >/tmp/loop <<'EOF'\n" + loop(strings.Join(names, " "), "timeout --foreground -k 1 100 sh ./$t") + "EOF\n"
	return []unit{{name: "tests", dir: filepath.Join(src, "tests"), timeout: 15 * time.Minute, script: test + `export THIS_SH=$PWD/../bash BUILD_DIR=$PWD/.. PATH=$PWD:$PATH BASH_TSTOUT=/tmp/tstout TERM=dumb
mkdir -m 777 /tmp/home
export HOME=/tmp/home USER=nobody LOGNAME=nobody
cp -r ` + locales + `/*.* /usr/lib/locale
script -qec "setpriv --reuid=65534 --regid=65534 --clear-groups sh /tmp/loop" /dev/null </dev/null`}}, err
}

// perlUnits: a unit for each directory, the larger one in two parts.
func perlUnits(dir string) (us []unit, err error) {
	src := filepath.Join(dir, "src")
	if err := source(src, "perl"); err != nil {
		return nil, err
	}
	if err := once(src, `sh ./Configure -des -Dusedevel -Doptimize=-O1 -Dman1dir=none -Dman3dir=none >/dev/null; make -s -j2 >/dev/null; make -s test_prep >/dev/null`); err != nil {
		return nil, err
	}
	for _, d := range []string{"io/*.t", "op/[a-l]*.t", "op/[m-z]*.t"} {
		us = append(us, unit{name: d, dir: filepath.Join(src, "t"), timeout: 20 * time.Minute, script: "PERL_SKIP_TTY_TEST=1 ./perl TEST " + d})
	}
	return us, nil
}

var perlLine = regexp.MustCompile(`(?m)^(?:t/)?((?:io|op)/\S+) \.*(?:\r.*)?\s*(ok|skipped|FAILED)`)

// parsePerl reads the lines of perl's driver TEST.
func parsePerl(out []byte) (o outcome) {
	for _, m := range perlLine.FindAllSubmatch(out, -1) {
		result := string(m[2])
		if result == "FAILED" {
			result = failed
		}
		o.set(string(m[1]), result)
	}
	return o
}
