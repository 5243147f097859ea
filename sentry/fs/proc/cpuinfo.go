package proc

import (
	"bytes"

	"gvisor.dev/gvisor/pkg/cpuid"
)

// hostCPUInfo makes /proc/cpuinfo from CPUID, when the host's own is not known.
func hostCPUInfo(n int) string {
	cpuid.Initialize()
	var b bytes.Buffer
	fs := cpuid.HostFeatureSet()
	for i := range n {
		fs.WriteCPUInfoTo(uint(i), uint(n), &b)
	}
	return b.String()
}
