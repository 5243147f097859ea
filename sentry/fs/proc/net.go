package proc

import (
	"bytes"

	"moat/sentry/fs/genfs"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// netFiles are the tables of /proc/net, with their headings. Options.Net prints what comes below.
var netFiles = []struct{ name, head string }{
	{"arp", "IP address       HW type     Flags       HW address            Mask     Device\n"},
	{"dev", "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"},
	{"icmp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n"},
	{"if_inet6", ""},
	{"igmp", "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"},
	{"ip_tables_names", ""},
	{"ipv6_route", ""},
	{"netlink", "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"},
	{"netstat", ""},
	{"packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"},
	{"protocols", "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em\n"},
	{"psched", "000003e8 00000040 000f4240 3b9aca00\n"},
	{"ptype", "Type Device      Function\n"},
	{"raw", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"},
	{"raw6", "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"},
	{"route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n"},
	{"rt_cache", "Iface\tDestination\tGateway \tFlags\t\tRefCnt\tUse\tMetric\tSource\t\tMTU\tWindow\tIRTT\tTOS\tHHRef\tHHUptod\tSpecDst                          \n"},
	{"snmp", ""},
	{"snmp6", ""},
	{"sockstat", ""},
	{"sockstat6", ""},
	{"softnet_stat", ""},
	{"tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n"},
	{"tcp6", "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"},
	{"udp", "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n"},
	{"udp6", "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"},
	{"udplite", "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n"},
	{"unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"},
	{"wireless", "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n"},
}

// netDir is /proc/PID/net: the reader's network namespace is shown.
func (f *FS) netDir() *genfs.Dir {
	t := genfs.NewTree(f.FS)
	for _, n := range netFiles {
		t.AddFile(n.name, 0o444, func(ctx vfs.Context, b *bytes.Buffer) error {
			b.WriteString(n.head)
			if gen := f.opts.Net[n.name]; gen != nil {
				gen(f.netOf(ctx), b)
			}
			return nil
		})
	}
	t.Add("stat", nil)
	t.Add("dev_snmp6", nil)
	return t.Dir(nil)
}

func (f *FS) netOf(ctx vfs.Context) *kernel.NetNamespace {
	return f.k.Within(ctx).Namespaces().Net
}
