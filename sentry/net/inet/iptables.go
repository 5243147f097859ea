package inet

import (
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"moat/sentry/kernel"
)

// The packet filter of IPv4 as iptables-legacy sets it (net/ipv4/netfilter/ip_tables.c). Carried by netstack: the tables filter and nat; the targets ACCEPT, DROP,
// RETURN, jumps, REJECT, DNAT, SNAT, REDIRECT and MASQUERADE of one address and port; the matches tcp, udp, multiport, owner and comment. Not carried: IPv6, the tables mangle
// and raw, goto, other matches and targets (ENOENT, as where a module is not there), counters (0), and nftables.
//
// A table is kept as the guest gave it, for IPT_SO_GET_ENTRIES, beside netstack's form of it. Only what has the layout of iptables' own tables is taken (EINVAL):
// the chains of hooks first, each ending with its policy, then the others, each between two ERROR entries; jumps go to their starts and never in circles
// (ELOOP), which netstack follows by recursion.

const (
	// maxTable bounds a table's entries in bytes, maxNesting how deep chains may call each other.
	maxTable   = 1 << 20
	maxNesting = 32
	// sizes of struct ipt_replace, ipt_getinfo, ipt_get_entries, ipt_entry, ipt_ip, xt_entry_match and xt_entry_target.
	sizeReplace = 96
	sizeInfo    = 84
	sizeEntries = 40
	sizeEntry   = 112
	sizeIP      = 84
	sizeExt     = 32
	nameLen     = 32
	// verdicts of standard targets.
	verdictDrop   = -1
	verdictAccept = -2
	verdictReturn = -5
	errorTarget   = "ERROR"
)

// hooks of a table, as bits.
type hooks uint32

const (
	onPrerouting hooks = 1 << iota
	onInput
	onForward
	onOutput
	onPostrouting
	everywhere hooks = 1<<iota - 1
)

// tables are those that there are.
var tables = map[string]struct {
	id    stack.TableID
	hooks hooks
}{
	"filter": {stack.FilterID, onInput | onForward | onOutput}, "nat": {stack.NATID, onPrerouting | onInput | onOutput | onPostrouting},
}

// table is a table as the guest sees it.
type table struct {
	entries         []byte
	count           uint32
	hook, underflow [stack.NumHooks]uint32
	valid           hooks
	form            stack.Table
}

// emptyTable has chains of hooks that accept, and nothing else.
func emptyTable(valid hooks) *table {
	t := &table{valid: valid}
	entry := func(target string, data []byte) {
		size := uint16(sizeExt + len(data))
		e := make([]byte, sizeEntry+int(size))
		binary.LittleEndian.PutUint16(e[88:], sizeEntry)
		binary.LittleEndian.PutUint16(e[90:], uint16(len(e)))
		binary.LittleEndian.PutUint16(e[sizeEntry:], size)
		copy(e[sizeEntry+2:], target)
		copy(e[sizeEntry+sizeExt:], data)
		t.entries = append(t.entries, e...)
		t.count++
	}
	for h := range t.hook {
		if valid>>h&1 != 0 {
			t.hook[h], t.underflow[h] = uint32(len(t.entries)), uint32(len(t.entries))
			accept := int32(verdictAccept)
			entry("", binary.LittleEndian.AppendUint64(nil, uint64(uint32(accept))))
		}
	}
	entry(errorTarget, append([]byte(errorTarget), make([]byte, 27)...))
	return t
}

// cstring is a name that ends with a zero byte.
func cstring(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// iptable finds a table by what a call begins with: ENOENT.
func (s *Stack) iptable(b []byte) (*table, string, error) {
	if len(b) < nameLen {
		return nil, "", unix.EINVAL
	}
	name := cstring(b[:nameLen])
	k, ok := tables[name]
	if !ok {
		return nil, "", unix.ENOENT
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.iptables[name]
	if t == nil {
		t = emptyTable(k.hooks)
	}
	return t, name, nil
}

// AskOption implements socket.Asker: the options of iptables that are asked with an argument, of who has CAP_NET_ADMIN.
func (s *sock) AskOption(t *kernel.Task, level, name int32, arg []byte) ([]byte, error) {
	if level != linux.SOL_IP || name < linux.IPT_SO_GET_INFO || name > linux.IPT_SO_GET_REVISION_TARGET || s.base.Family != unix.AF_INET {
		return nil, unix.ENOPROTOOPT
	}
	if !s.capable(t, linux.CAP_NET_ADMIN) {
		return nil, unix.EPERM
	}
	le := binary.LittleEndian
	switch name {
	case linux.IPT_SO_GET_REVISION_MATCH, linux.IPT_SO_GET_REVISION_TARGET:
		if len(arg) != 30 {
			return nil, unix.EINVAL
		}
		revs := matches
		if name == linux.IPT_SO_GET_REVISION_TARGET {
			revs = targets
		}
		rev, ok := revs[cstring(arg[:29])]
		switch {
		case !ok:
			return nil, unix.ENOENT
		case arg[29] != rev:
			return nil, unix.EPROTONOSUPPORT
		}
		return arg, nil
	}
	k, tname, err := s.st.iptable(arg)
	if err != nil {
		return nil, err
	}
	if name == linux.IPT_SO_GET_ENTRIES {
		if len(arg) < sizeEntries {
			return nil, unix.EINVAL
		}
		if le.Uint32(arg[nameLen:]) != uint32(len(k.entries)) {
			return nil, unix.EAGAIN
		}
		return append(append(make([]byte, 0, sizeEntries+len(k.entries)), arg[:sizeEntries]...), k.entries...), nil
	}
	b := make([]byte, nameLen, sizeInfo)
	copy(b, tname)
	b = le.AppendUint32(b, uint32(k.valid))
	for _, l := range [][stack.NumHooks]uint32{k.hook, k.underflow} {
		for _, o := range l {
			b = le.AppendUint32(b, o)
		}
	}
	return le.AppendUint32(le.AppendUint32(b, k.count), uint32(len(k.entries))), nil
}

// setTable is IPT_SO_SET_REPLACE and, which changes nothing, IPT_SO_SET_ADD_COUNTERS.
func (s *sock) setTable(t *kernel.Task, name int32, b []byte) error {
	switch {
	case s.base.Family != unix.AF_INET:
		return unix.ENOPROTOOPT
	case !s.capable(t, linux.CAP_NET_ADMIN):
		return unix.EPERM
	}
	old, tname, err := s.st.iptable(b)
	if err != nil || name == linux.IPT_SO_SET_ADD_COUNTERS {
		return err
	}
	if len(b) < sizeReplace {
		return unix.EINVAL
	}
	n := s.st.tcpip()
	reject, _ := n.NetworkProtocolInstance(ipv4.ProtocolNumber).(stack.RejectIPv4WithHandler)
	k, err := decodeTable(b, tables[tname].hooks, &rejecter{reject, make(chan struct{}, maxRejects)})
	if err != nil {
		return err
	}
	s.st.mu.Lock()
	if s.st.iptables == nil {
		s.st.iptables = make(map[string]*table)
	}
	s.st.iptables[tname] = k
	n.IPTables().ReplaceTable(tables[tname].id, k.form, false)
	s.st.mu.Unlock()
	// The counters of the old entries, which nobody has kept.
	at := hostarch.Addr(binary.LittleEndian.Uint64(b[88:]))
	if _, err := t.CopyOut(at, make([]byte, 16*min(old.count, binary.LittleEndian.Uint32(b[84:])))); err != nil {
		return unix.EFAULT
	}
	return nil
}

// decodeTable takes a struct ipt_replace apart, every byte of which is the guest's.
func decodeTable(b []byte, valid hooks, reject stack.RejectIPv4WithHandler) (*table, error) {
	le := binary.LittleEndian
	if len(b) < sizeReplace || hooks(le.Uint32(b[32:])) != valid {
		return nil, unix.EINVAL
	}
	k := &table{valid: valid, count: le.Uint32(b[36:]), entries: slices.Clone(b[sizeReplace:])}
	if le.Uint32(b[40:]) != uint32(len(k.entries)) || len(k.entries) > maxTable {
		return nil, unix.EINVAL
	}
	for h := range k.hook {
		k.hook[h], k.underflow[h] = le.Uint32(b[44+4*h:]), le.Uint32(b[64+4*h:])
	}
	// at is the rule at an offset; heads are the rules that are ERROR entries, jumps what rules jump to.
	at, jumps, heads := map[uint32]int{}, map[int]uint32{}, []int{}
	for off := 0; off < len(k.entries); {
		r, next, jump, err := decodeRule(k.entries[off:], reject)
		if err != nil {
			return nil, err
		}
		i := len(k.form.Rules)
		if at[uint32(off)] = i; jump > 0 {
			jumps[i] = jump
		}
		if _, head := r.Target.(*stack.ErrorTarget); head {
			heads = append(heads, i)
		}
		k.form.Rules = append(k.form.Rules, r)
		clear(k.entries[off+96 : off+112]) // counters
		off += next
	}
	last := len(k.form.Rules) - 1
	if len(heads) == 0 || heads[len(heads)-1] != last || uint32(last+1) != k.count {
		return nil, unix.EINVAL
	}
	end := -1 // of the last hook's chain
	for h := range k.hook {
		k.form.BuiltinChains[h], k.form.Underflows[h] = stack.HookUnset, stack.HookUnset
		if valid>>h&1 == 0 {
			continue
		}
		first, ok1 := at[k.hook[h]]
		policy, ok2 := at[k.underflow[h]]
		if !ok1 || !ok2 || first <= end || policy < first || policy >= heads[0] || !unconditional(&k.form.Rules[policy]) {
			return nil, unix.EINVAL
		}
		end = policy
		k.form.BuiltinChains[h], k.form.Underflows[h] = first, policy
	}
	return k, k.link(at, jumps, heads)
}

// unconditional reports whether a rule is a policy: ACCEPT or DROP of everything.
func unconditional(r *stack.Rule) bool {
	switch r.Target.(type) {
	case *stack.AcceptTarget, *stack.DropTarget:
		return len(r.Matchers) == 0 && r.Filter == stack.EmptyFilter4()
	}
	return false
}

// link resolves jumps, which lead to the starts of chains, and finds circles.
func (k *table) link(at map[uint32]int, jumps map[int]uint32, heads []int) error {
	// chain is the number of the chain that a rule is in: those of hooks are one.
	chain := func(rule int) int {
		n, _ := slices.BinarySearch(heads, rule)
		return n
	}
	calls := make([][]int, len(heads)+1)
	for rule, off := range jumps {
		to, ok := at[off]
		if !ok || to == 0 {
			return unix.EINVAL
		}
		if _, ok := slices.BinarySearch(heads, to-1); !ok {
			return unix.EINVAL
		}
		k.form.Rules[rule].Target = jumpTarget(to)
		calls[chain(rule)] = append(calls[chain(rule)], chain(to))
	}
	// depth is how deep a chain calls others, -1 while that is being found out.
	depth := make(map[int]int)
	var find func(c, above int) error
	find = func(c, above int) error {
		if d, ok := depth[c]; ok && d >= 0 && above+d <= maxNesting {
			return nil
		} else if ok && d < 0 || above > maxNesting {
			return unix.ELOOP
		}
		depth[c] = -1
		deepest := 0
		for _, to := range calls[c] {
			if err := find(to, above+1); err != nil {
				return err
			}
			deepest = max(deepest, depth[to]+1)
		}
		depth[c] = deepest
		return nil
	}
	for c := range calls {
		if err := find(c, 0); err != nil {
			return err
		}
	}
	return nil
}

// jumpTarget goes on at a rule.
type jumpTarget int

// Action implements stack.Target.
func (j jumpTarget) Action(*stack.PacketBuffer, stack.Hook, *stack.Route, stack.AddressableEndpoint) (stack.RuleVerdict, int) {
	return stack.RuleJump, int(j)
}

// maxRejects bounds the answers of REJECT that are on their way.
const maxRejects = 64

// rejecter sends the answers of REJECT later: over lo they reach the socket at once that sends, and that holds its lock meanwhile.
type rejecter struct {
	to    stack.RejectIPv4WithHandler
	slots chan struct{}
}

// SendRejectionError implements stack.RejectIPv4WithHandler.
func (r *rejecter) SendRejectionError(p *stack.PacketBuffer, with stack.RejectIPv4WithICMPType, input bool) tcpip.Error {
	select {
	case r.slots <- struct{}{}:
		c := p.Clone()
		go func() {
			_ = r.to.SendRejectionError(c, with, input) // who sent the packet waits for no answer
			c.DecRef()
			<-r.slots
		}()
	default: // as where the rate of ICMP is limited
	}
	return nil
}

// hooked is a target of netstack's that panics where it is not for: there it drops.
type hooked struct {
	stack.Target
	hooks hooks
}

// Action implements stack.Target.
func (t *hooked) Action(p *stack.PacketBuffer, h stack.Hook, r *stack.Route, a stack.AddressableEndpoint) (stack.RuleVerdict, int) {
	if t.hooks>>h&1 == 0 || h == stack.Postrouting && a == nil ||
		h == stack.Prerouting && (a == nil || a.MainAddress().Address.Len() != header.IPv4AddressSize) {
		return stack.RuleDrop, 0
	}
	return t.Target.Action(p, h, r, a)
}
