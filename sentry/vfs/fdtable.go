package vfs

// FDTable is a table of file descriptors (SKELETON: the VFS engineer fills it in).
type FDTable struct{}
