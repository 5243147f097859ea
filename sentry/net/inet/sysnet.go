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
	var v any = 0
	switch attr {
	case "addr_len":
		v = 6
	case "address":
		v = mac(string(n.LinkAddress))
	case "broadcast":
		if v = mac("\xff\xff\xff\xff\xff\xff"); n.Flags.Loopback {
			v = mac("")
		}
	case "carrier":
		if n.Flags.Running {
			v = 1
		}
	case "flags":
		v = fmt.Sprintf("%#x", n.LinuxFlags()&0xffff&^0x40)
	case "ifindex", "iflink":
		v = id
	case "ifalias":
		v = ""
	case "mtu":
		v = n.MTU
	case "operstate":
		if v = "down"; n.Flags.Loopback {
			v = "unknown"
		} else if n.Flags.Running {
			v = "up"
		}
	case "speed":
		v = 10000
	case "tx_queue_len":
		v = 1000
	case "type":
		v = n.HardwareType()
	case "uevent":
		v = fmt.Sprintf("INTERFACE=%s\nIFINDEX=%d", n.Name, id)
	case "statistics/rx_bytes":
		v = n.Stats.Rx.Bytes.Value()
	case "statistics/rx_packets":
		v = n.Stats.Rx.Packets.Value()
	case "statistics/tx_bytes":
		v = n.Stats.Tx.Bytes.Value()
	case "statistics/tx_packets":
		v = n.Stats.Tx.Packets.Value()
	}
	return fmt.Sprintln(v)
}
