package sealed

import (
	"net/netip"
	"testing"
)

func ports(texts ...string) (all []netip.AddrPort) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddrPort(t))
	}
	return all
}

// TestServer follows a name's addresses: the one in use stays while it
// answers and the name has it.
func TestServer(t *testing.T) {
	s := NewServer()
	want := func(addr string) {
		t.Helper()
		if a, _ := s.Addr(); a.String() != addr {
			t.Errorf("%v is in use, want %s", a, addr)
		}
	}
	if a, turn := s.Addr(); a.IsValid() {
		t.Errorf("without any address: %v", a)
	} else {
		s.failed(turn)
	}
	select {
	case <-s.Failing():
	default:
		t.Error("who has no address wants none")
	}
	s.Set(ports("192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"))
	want("192.0.2.1:80")
	_, turn := s.Addr()
	for range 5 { // a crowd that was told the same
		s.failed(turn)
	}
	want("192.0.2.2:80")
	s.Set(ports("192.0.2.9:80", "192.0.2.2:80"))
	want("192.0.2.2:80")
	_, turn = s.Addr()
	s.Set(ports("192.0.2.7:80", "192.0.2.8:80"))
	want("192.0.2.7:80")
	s.failed(turn) // of an address that is no more
	want("192.0.2.7:80")
	for range 2 {
		_, turn = s.Addr()
		s.failed(turn)
	}
	want("192.0.2.7:80")
}
