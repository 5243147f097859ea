// Package ebpf has programs of the one type that container runtimes cannot do without: BPF_PROG_TYPE_CGROUP_DEVICE, which say what devices the tasks of a control group
// may open and make (Documentation/bpf/standardization/instruction-set.rst, and kernel/bpf/cgroup.c for the context). One of BPF_PROG_TYPE_CGROUP_SKB, which runc
// loads to see whether there is BPF_PROG_ATTACH at all, is only verified.
//
// A program is what Load lets through: registers and the context alone (no stack, maps, calls or 64-bit immediates), jumps that lead forward, so that it ends after as
// many steps as it has instructions, and no register is read before it is written. Programs do not change, and have no locks.
package ebpf
