package split

import (
	"net/netip"
	"testing"
	"unsafe"
)

func TestTuple(t *testing.T) {
	for _, c := range [][2]string{{"198.18.3.2:1024", "203.0.113.7:443"}, {"[fd00:3::2]:65535", "[2001:db8::1]:1"}} {
		local, remote := netip.MustParseAddrPort(c[0]), netip.MustParseAddrPort(c[1])
		e := between(local, remote)
		if e.local() != local || e.remote() != remote {
			t.Errorf("%v to %v: %v to %v", local, remote, e.local(), e.remote())
		}
	}
}

// TestConnSize keeps what every connection holds within the allocator's classes:
// one byte more costs the next one, times 100,000.
func TestConnSize(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 256 {
		t.Errorf("a Conn takes %d bytes", n)
	}
	if n := unsafe.Sizeof(small{}); n > 32 {
		t.Errorf("a small takes %d bytes", n)
	}
}
