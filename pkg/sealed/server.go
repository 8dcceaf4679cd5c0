package sealed

import (
	"net/netip"
	"slices"
	"sync"
)

// Server is where a service of the gateway is: the addresses of its name. The
// one in use is kept while it answers; when it does not, flows that come
// later try the next. Any goroutine may call its methods.
type Server struct {
	again chan struct{} // one slot

	mu    sync.Mutex
	addrs []netip.AddrPort
	at    int    // of them the one in use
	turn  uint32 // counts the changes of the one in use
}

// NewServer returns a server that has these addresses, or none yet.
func NewServer(addrs ...netip.AddrPort) *Server {
	return &Server{again: make(chan struct{}, 1), addrs: addrs}
}

// Addr returns the address in use and its turn; it is invalid while none is known.
func (s *Server) Addr() (addr netip.AddrPort, turn uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.addrs) == 0 {
		return netip.AddrPort{}, s.turn
	}
	return s.addrs[s.at], s.turn
}

// Set replaces the addresses, at least one, the best first. The one in use
// stays so while it is among them.
func (s *Server) Set(addrs []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := -1
	if len(s.addrs) > 0 {
		at = slices.Index(addrs, s.addrs[s.at])
	}
	if at < 0 {
		at = 0
		s.turn++
	}
	s.addrs, s.at = slices.Clone(addrs), at
}

// Failing tells of flows that failed for want of an answer, or of an address,
// since it did so last: the name may have got another one.
func (s *Server) Failing() <-chan struct{} { return s.again }

// failed notes that the address of that turn does not answer. Of a crowd whose
// connects fail one after the other the first alone moves on.
func (s *Server) failed(turn uint32) {
	s.mu.Lock()
	if turn == s.turn && len(s.addrs) > 0 {
		s.at = (s.at + 1) % len(s.addrs)
		s.turn++
	}
	s.mu.Unlock()
	select {
	case s.again <- struct{}{}:
	default:
	}
}
