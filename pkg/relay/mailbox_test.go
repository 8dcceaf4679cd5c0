package relay

import (
	"testing"

	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// TestMailIsForgotten: a worker that has seen to its mail names nothing that was in
// it, which would not be collected before the next mail comes.
func TestMailIsForgotten(t *testing.T) {
	b := newBench(t, nil)
	b.f.note(party.Readable)
	b.w.box.deliver([]stream.Event{{From: b.tun, Kind: stream.EventCredit, Flow: b.f.id, Limit: 1 << 20}})
	b.turn()
	m := &b.w.mail
	if cap(m.ready) == 0 || cap(m.events) == 0 {
		t.Fatal("there was no mail")
	}
	if f := m.ready[:1][0]; f != nil {
		t.Errorf("flow %d is still named", f.id)
	}
	if e := m.events[:1][0]; e.From != nil {
		t.Errorf("event %+v is still there", e)
	}
}
