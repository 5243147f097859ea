package trap

import (
	"testing"

	"moat/platform/platformtest"
)

func TestPlatform(t *testing.T)      { platformtest.Run(t, New) }
func BenchmarkPlatform(b *testing.B) { platformtest.Bench(b, New) }
