package relay

import "testing"

// TestLeastWindow: a flow that began with any credit goes on with the least window, once all
// that was sent is consumed. A session makes windows that small where memory has become
// scarce and the peer reads slowly.
func TestLeastWindow(t *testing.T) {
	const least = 1 << 10
	for _, first := range []uint64{least, 4 << 10, 32 << 10, 512 << 10} {
		u := sealing{half: half{m: NewMachine(1)}}
		u.m.SourceReady()
		u.credit(first)
		u.sent = first
		if u.m.Room(u.room() >= int(u.least)); u.m.Next() == ActRead {
			t.Errorf("began with %d: it reads without credit", first)
		}
		if u.credit(first + least); u.m.Next() != ActRead {
			t.Errorf("began with %d: it reads nothing with a credit of %d", first, least)
		}
	}
}
