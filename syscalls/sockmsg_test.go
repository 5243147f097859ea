package syscalls

import "testing"

// FuzzControl: control messages from a guest are cut at their own length, never beyond what came.
func FuzzControl(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		_ = parseControl(b, func(_, _ int32, data []byte) error {
			total += cmsgLen + len(data)
			return nil
		})
		if total > len(b) {
			t.Fatalf("%d bytes of messages in %d", total, len(b))
		}
	})
}
