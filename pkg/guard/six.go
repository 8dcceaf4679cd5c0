package guard

// Who is refused by a server's IPv6 address, or not answered at once, goes on with its IPv4
// address (RFC 8305). Who has been accepted and is then reset does not. Where the cloud has
// no IPv6, or none that works, that would be every client that has: so in Auto nobody is
// accepted by IPv6 before his server is there, until one has been, nor after a few in a
// row could not be reached. Of IPv4 the same would help nobody.

// lostAfter is after how many servers in a row that could not be reached IPv6 counts as gone.
const lostAfter = 3

// six is what is known of the cloud's IPv6.
type six struct {
	works bool // a server was there
	lost  int  // how many since could not be reached
}

// reached notes that a server was there.
func (x *six) reached(s Server) {
	if s.six() {
		x.works, x.lost = true, 0
	}
}

// missed notes that a server could not be reached.
func (x *six) missed(s Server) {
	if !s.six() {
		return
	}
	if x.lost++; x.lost >= lostAfter {
		x.works = false
	}
}

// six says whether a server is an IPv6 one.
func (s *Server) six() bool { return s.Addr != [16]byte{} && !mapped(&s.Addr) }
