package boot

// applySpec does what is to be done in the container's mount tree before its first process.
func (b *sandbox) applySpec() error { return nil }
