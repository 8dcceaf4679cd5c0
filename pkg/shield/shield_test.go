package shield

import (
	"net"
	"os"
	"testing"
)

// TestInterfaceGone: an interface that goes between being looked up and being given the
// program does not cost the others theirs.
func TestInterfaceGone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads a BPF program")
	}
	s, err := New(Options{Hub: 1})
	if err != nil {
		t.Skipf("this kernel does not: %v", err)
	}
	defer s.Close()
	if err := s.attach(&net.Interface{Index: 1 << 30, Name: "gone"}); err != nil || s.Attached() != 0 {
		t.Errorf("attached to %d interfaces, %v", s.Attached(), err)
	}
}
