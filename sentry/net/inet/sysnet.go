package inet

import (
	"fmt"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// SysAttrs are the files of /sys/class/net/NAME that SysAttr prints.
var SysAttrs = strings.Fields(`addr_assign_type addr_len address broadcast carrier dev_id dev_port dormant flags gro_flush_timeout group ifalias ifindex iflink link_mode mtu
	name_assign_type netdev_group operstate proto_down speed tx_queue_len type uevent
	statistics/collisions statistics/multicast statistics/rx_bytes statistics/rx_dropped statistics/rx_errors statistics/rx_packets statistics/tx_bytes
	statistics/tx_dropped statistics/tx_errors statistics/tx_packets`)

// SysAttr is a file of an interface with the index id in sysfs (Documentation/ABI/testing/sysfs-class-net).
func (s *Stack) SysAttr(id int, attr string) string {
	i, ok := s.tcpip().SingleNICInfo(tcpip.NICID(id))
	if !ok {
		return ""
	}
	n := NIC{tcpip.NICID(id), *i}
	mac := func(b string) string {
		if b == "" {
			b = "\x00\x00\x00\x00\x00\x00"
		}
		return tcpip.LinkAddress(b).String()
	}
	broadcast, carrier, state := mac("\xff\xff\xff\xff\xff\xff"), 0, "down"
	if n.Flags.Running {
		carrier, state = 1, "up"
	}
	if n.Flags.Loopback {
		broadcast, state = mac(""), "unknown"
	}
	v, ok := map[string]any{
		"addr_len": 6, "address": mac(string(n.LinkAddress)), "broadcast": broadcast, "carrier": carrier, "flags": fmt.Sprintf("%#x", n.LinuxFlags()&0xffff&^0x40),
		"ifindex": id, "iflink": id, "ifalias": "", "mtu": n.MTU, "operstate": state, "speed": 10000, "tx_queue_len": 1000, "type": n.HardwareType(),
		"uevent":              fmt.Sprintf("INTERFACE=%s\nIFINDEX=%d", n.Name, id),
		"statistics/rx_bytes": n.Stats.Rx.Bytes.Value(), "statistics/rx_packets": n.Stats.Rx.Packets.Value(),
		"statistics/tx_bytes": n.Stats.Tx.Bytes.Value(), "statistics/tx_packets": n.Stats.Tx.Packets.Value(),
	}[attr]
	if !ok {
		v = 0
	}
	return fmt.Sprintln(v)
}
