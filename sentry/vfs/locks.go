package vfs

type lockContext struct{}
type leaseState struct{}

func (fd *FileDescription) flush(t *FDTable) {}
func (fd *FileDescription) dropLocks()       {}
