package boot

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"moat/platform"
	"moat/platform/ptrace"
	"moat/platform/stub"
	"moat/platform/trap"
)

// DefaultPlatform is what --platform means when it is not given.
const DefaultPlatform = "trap"

// platforms make the machines that run guest code, by name.
var platforms = map[string]func() (platform.Platform, error){
	"ptrace": ptrace.New,
	"trap":   trap.New,
}

// Platforms are the names that --platform takes.
func Platforms() []string { return slices.Sorted(maps.Keys(platforms)) }

// GuestRules are the calls of the host that guest threads of a platform may make; their helper's are stub.HelperRules.
func GuestRules(name string) []stub.Rule {
	switch name {
	case "ptrace":
		return ptrace.GuestRules()
	case "trap":
		return trap.GuestRules()
	}
	return nil
}

func newPlatform(name string) (platform.Platform, error) {
	if name == "" {
		name = DefaultPlatform
	}
	mk := platforms[name]
	if mk == nil {
		return nil, fmt.Errorf("there is no platform %q; there are: %s", name, strings.Join(Platforms(), ", "))
	}
	p, err := mk()
	if err != nil {
		return nil, fmt.Errorf("platform %s does not work on this host: %w", name, err)
	}
	return p, nil
}
