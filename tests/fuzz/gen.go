package main

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"moat/syscalls"
)

// arg makes an argument, in the words of exec/diff.c.
type arg func(g *gen) string

// callType is a kind of call: a system call with kinds of arguments. Programs have as many of it as its weight asks.
type callType struct {
	name   string
	result byte   // how its result is printed: d a number, z zero or not, a an address, i an identity
	makes  string // the kind of resource that the result is, or that words of the first buffer are: "fd.file", "pid", "fd.pipe2" (two)
	args   []arg
	weight int
}

// call is a call of a program.
type call struct {
	actor int
	t     *callType
	args  []string
}

type program struct {
	user  int
	calls []call
}

// resource is what an earlier call made.
type resource struct{ kind, ref string }

type gen struct {
	*rand.Rand
	made []resource
	last string // the length that goes with the buffer made before
}

// extras are the executor's own calls.
var extras = map[string]int{"fork_pause": 1000, "fork_exit": 1001, "poke": 1002, "peek": 1003}

var numbers = func() map[string]int {
	m := map[string]int{}
	for _, r := range syscalls.Rows() {
		m[r.Name] = int(r.Nr)
	}
	for n, nr := range extras {
		m[n] = nr
	}
	return m
}()

func (g *gen) one(p int) bool { return g.IntN(p) == 0 }

func pick[T any](g *gen, s []T) T { return s[g.IntN(len(s))] }

// generate makes the program of a seed.
func generate(seed uint64, only string) program {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 7))}
	p := program{user: g.IntN(3) / 2}
	// A program is about a few families, so that its calls meet.
	var types []*callType
	total := 0
	var fams []string
	for n := 1 + g.IntN(3); n > 0; n-- {
		fams = append(fams, pick(g, familyNames))
	}
	if only != "" {
		fams = strings.Split(only, ",")
	}
	for _, n := range append(fams, "base") {
		for i := range families[n] {
			t := &families[n][i]
			types = append(types, t)
			total += t.weight
		}
	}
	n, actor := 20+g.IntN(g.IntN(160)+20), 0
	for len(p.calls) < n {
		if g.one(5) {
			actor = max(0, g.IntN(5)-2)
		}
		at := g.IntN(total)
		var t *callType
		for _, t = range types {
			if at -= t.weight; at < 0 {
				break
			}
		}
		c := call{actor: actor, t: t}
		g.last = "0"
		for _, a := range t.args {
			c.args = append(c.args, a(g))
		}
		ref := fmt.Sprintf("$%d", len(p.calls))
		switch k := t.makes; {
		case strings.HasSuffix(k, "2"):
			g.made = append(g.made, resource{k[:len(k)-1], ref + ".0"}, resource{k[:len(k)-1], ref + ".1"})
		case k != "":
			g.made = append(g.made, resource{k, ref})
		}
		p.calls = append(p.calls, c)
	}
	return p
}

// text is the program as exec/diff.c reads it: a call that sleeps for quiet is left waiting.
func (p program) text(quiet time.Duration) string {
	var b strings.Builder
	net := 0
	for _, c := range p.calls {
		if c.t.makes == "fd.inet" {
			net = 1
		}
	}
	fmt.Fprintf(&b, "P %d %d %d %d\n", len(p.calls), p.user, quiet.Microseconds(), net)
	for _, c := range p.calls {
		fmt.Fprintln(&b, c.actor, string(c.t.result), numbers[c.t.name], strings.Join(c.args, " "))
	}
	return b.String()
}

// String is the program for people.
func (p program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "as %s:\n", map[int]string{0: "root", 1: "user 1000"}[p.user])
	for i := range p.calls {
		fmt.Fprintln(&b, p.show(i))
	}
	return b.String()
}

func (p program) show(i int) string {
	c := p.calls[i]
	return fmt.Sprintf("%3d [%d] %s(%s)", i, c.actor, c.t.name, strings.Join(readable(c.args), ", "))
}

func readable(args []string) (out []string) {
	for _, a := range args {
		if b, err := hex.DecodeString(strings.TrimPrefix(a, "\"")); err == nil && strings.HasPrefix(a, "\"") {
			a = fmt.Sprintf("%.60q", strings.TrimSuffix(string(b), "\x00"))
		}
		out = append(out, a)
	}
	return out
}

// without is the program without calls [i, j). References to them become -1, those to later ones follow.
func (p program) without(i, j int) program {
	q := program{user: p.user}
	for k, c := range p.calls {
		if k >= i && k < j {
			continue
		}
		if k >= j {
			args := make([]string, len(c.args))
			for n, a := range c.args {
				args[n] = renumber(a, i, j)
			}
			c.args = args
		}
		q.calls = append(q.calls, c)
	}
	return q
}

func renumber(a string, i, j int) string {
	f := strings.Fields(a)
	for k, w := range f {
		at := strings.IndexByte(w, '$')
		if at < 0 {
			continue
		}
		var n int
		rest := ""
		fmt.Sscanf(w[at+1:], "%d", &n)
		if dot := strings.IndexByte(w, '.'); dot >= 0 {
			rest = w[dot:]
		}
		switch {
		case n >= j:
			f[k] = fmt.Sprintf("%s$%d%s", w[:at], n-(j-i), rest)
		case n >= i:
			f[k] = w[:at] + "-1"
		}
	}
	return strings.Join(f, " ")
}

// What arguments are made of.

func oneOf(vals ...any) arg {
	s := make([]string, len(vals))
	for i, v := range vals {
		s[i] = fmt.Sprint(v)
	}
	return func(g *gen) string { return pick(g, s) }
}

// rarely is b one time in n, and otherwise a.
func rarely(n int, a, b arg) arg {
	return func(g *gen) string {
		if g.one(n) {
			return b(g)
		}
		return a(g)
	}
}

// flags are some of bits, or none, or seldom any.
func flags(bits ...int) arg {
	return func(g *gen) string {
		if g.one(40) {
			return fmt.Sprint(1 << g.IntN(32))
		}
		v := 0
		for n := g.IntN(4); n > 0; n-- {
			v |= pick(g, bits)
		}
		return fmt.Sprint(v)
	}
}

// of is a resource of one of the kinds, by prefix.
func of(kinds ...string) arg {
	return func(g *gen) string {
		var s []string
		for _, r := range g.made {
			for _, k := range kinds {
				if strings.HasPrefix(r.kind, k) {
					s = append(s, r.ref)
				}
			}
		}
		if len(s) == 0 || g.one(60) {
			return pick(g, []string{"-1", "0", "1", "3", "4", "99", "100", "1000"})
		}
		// The newest is the likeliest: old ones may be closed.
		if g.one(2) {
			return s[len(s)-1]
		}
		return pick(g, s)
	}
}

// fd is a descriptor of some kind, or seldom of another.
func fd(kinds ...string) arg {
	for i, k := range kinds {
		kinds[i] = "fd." + k
	}
	return rarely(15, of(kinds...), of("fd"))
}

var anyFD = of("fd")
var dirfd = rarely(4, oneOf(-100), rarely(3, fd("dir"), of("fd")))

func str(s string) string { return "\"" + hex.EncodeToString([]byte(s)) + "00" }

var names = []string{"a", "b", "c", "d", "e", "d/a", "d/b", "d/e", "e/a", "d/e/a", ".", "..", "d/..", "l", "l2", "l/a", "a/", "d/", "p", "s", "./a", "d//a", "a/b", "/tmp/w/a", "/tmp/w/d/a"}
var odd = []string{"", "/", "/proc/self", "/proc/self/fd/3", "/proc/self/cwd/a", "/dev/null", "/dev/full", "/none/x", strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("d/", 2046) + "aaa", strings.Repeat("../", 30) + "tmp/w/a", "/proc/self/exe/x", "/proc/1/fd", "/dev/zero/"}

func path(g *gen) string {
	switch {
	case g.one(50):
		return pick(g, []string{"0", "~", "^" + str("a"), "^\"6161"})
	case g.one(12):
		return str(pick(g, odd))
	}
	return str(pick(g, names))
}

func lit(ss ...string) arg {
	return func(g *gen) string { return str(pick(g, ss)) }
}

var sizes = []int{0, 1, 2, 3, 7, 8, 16, 63, 64, 100, 511, 512, 1000, 4095, 4096, 4097, 6000}

var size = rarely(30, func(g *gen) string { return fmt.Sprint(pick(g, sizes)) }, oneOf(-1, 1<<20, 1<<31, 1<<62, "0x7fffffffffffffff"))
var off = rarely(12, oneOf(0, 1, 2, 10, 100, 511, 512, 1000, 4095, 4096, 4097, 8192, 10000, 65536), oneOf(-1, -4096, 1<<40, "0x7fffffffffffffff", "0x7ffffffffffff000", 1<<31, 1<<32))
var mode = oneOf("0644", "0600", "0777", "0", "0444", "0111", "04755", "02755", "01777", "07777", "0100644", "0200")

// inBuf is bytes; their number is the next argument, length.
func inBuf(g *gen) string {
	n := pick(g, sizes)
	if g.one(4) {
		n = g.IntN(3000)
	}
	g.last = fmt.Sprint(n)
	switch {
	case g.one(40):
		return pick(g, []string{"0", "~", "-1"})
	case n == 0:
		return "\""
	}
	h := fmt.Sprintf("=%d,%c%c%c", n, 'a'+g.IntN(26), 'A'+g.IntN(26), '0'+g.IntN(10))
	if g.one(20) {
		h = "^" + h
	}
	return h
}

// outBuf is a buffer; its length is the next argument.
func outBuf(g *gen) string {
	n := pick(g, sizes)
	g.last = fmt.Sprint(n)
	if g.one(40) {
		return pick(g, []string{"0", "~", "-1"})
	}
	if g.one(20) {
		return fmt.Sprintf("^*%d:x", n)
	}
	return fmt.Sprintf("*%d:x", n)
}

func length(g *gen) string {
	if g.one(60) {
		return pick(g, []string{"-1", "0", "0x7fffffff", "0x80000000", "10000"})
	}
	return g.last
}

// out is a buffer of n bytes that is printed by spec.
func out(n int, spec string) arg {
	spec = strings.ReplaceAll(spec, " ", ",")
	return func(g *gen) string {
		switch g.IntN(60) {
		case 0:
			return "0"
		case 1:
			return "~"
		case 2, 3:
			return fmt.Sprintf("^*%d:%s", n, spec)
		}
		return fmt.Sprintf("*%d:%s", n, spec)
	}
}

// inout is a structure that is printed by spec.
func inout(spec string, items ...any) arg {
	s := structOf(items...)
	spec = strings.ReplaceAll(spec, " ", ",")
	return func(g *gen) string {
		w := s(g)
		if strings.HasSuffix(w, "}") {
			w += spec
		}
		return w
	}
}

// structOf is a structure: strings as they are, args with a width in front: "4:", arg.
func structOf(items ...any) arg {
	return func(g *gen) string {
		if g.one(50) {
			return pick(g, []string{"0", "~"})
		}
		return plainStruct(g, items...)
	}
}

func plainStruct(g *gen, items ...any) string {
	w := "{"
	if g.one(20) {
		w = "^{"
	}
	for i := 0; i < len(items); i++ {
		switch v := items[i].(type) {
		case string:
			w += " " + v
			if strings.HasSuffix(v, ":") {
				i++
				w += items[i].(arg)(g)
			}
		case arg:
			w += " " + v(g)
		}
	}
	return w + " }"
}

// vec is an iovec array; its length is the next argument.
func vec(buf arg) arg {
	return func(g *gen) string {
		n := g.IntN(4)
		w := "{"
		for range n {
			w += " " + buf(g)
			w += " 8:" + g.last
		}
		g.last = fmt.Sprint(n)
		if g.one(40) {
			return pick(g, []string{"0", "~"})
		}
		if n == 0 {
			return "\""
		}
		return w + " }"
	}
}

func opt(a arg) arg { return rarely(3, a, oneOf(0)) }

// timeout never lies between a few milliseconds and minutes, so that whether a call still waits does not depend on the machine.
var timeout arg = func(g *gen) string {
	return plainStruct(g, pick(g, []string{"8:0 8:0", "8:0 8:0", "8:0 8:1000000", "8:1000 8:0", "8:-1 8:0", "8:0 8:1000000000", "8:0 8:-1"}))
}
