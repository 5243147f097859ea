package container

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// mergeResources is old with what is set in r.
func mergeResources(old, r *specs.LinuxResources) *specs.LinuxResources {
	n := &specs.LinuxResources{}
	// Fields that are not set are left out of JSON, so decoding one over the other merges them; what is nil is null, which changes nothing.
	for _, x := range []*specs.LinuxResources{old, r} {
		if b, err := json.Marshal(x); err == nil {
			json.Unmarshal(b, n)
		}
	}
	return n
}

// stateJSON is the state that hooks are told.
func (c *Container) stateJSON(status string) (string, error) {
	b, err := json.Marshal(c.specState(status))
	return string(b), err
}
