package link

// When batches of packets look spoilt on their way.
const (
	spoiltLook  = 64   // packets between two looks
	spoiltShare = 0.25 // that is lost, and that arrives, at least
	spoiltRow   = 4    // looks in a row that find it so: an outage begins and ends in one each
)

// spoilt finds out from what arrives whether a connection does better without batches
// (UDP_SEGMENT). Where a network card computes no checksums, as those of modems, and this host's
// own NAT changes the port, Linux from 6.11 on computes them wrong for all packets of a batch:
// an upload has a hundredth of its rate then. A line that loses so much otherwise
// is slow enough to do without.
type spoilt struct {
	lost, arrived uint64 // at the last look
	row           int
}

// look takes in how many packets have been lost and have arrived in all.
func (s *spoilt) look(lost, arrived uint64) bool {
	l, a := lost-s.lost, arrived-s.arrived
	if l+a < spoiltLook {
		return false
	}
	s.lost, s.arrived = lost, arrived
	if least := uint64(spoiltShare * float64(l+a)); l < least || a < least {
		s.row = 0
		return false
	}
	s.row++
	return s.row == spoiltRow
}
