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

// TestRoomForMailIsGivenBack: a worker whose last flow has ended keeps no room for
// the mail of many.
func TestRoomForMailIsGivenBack(t *testing.T) {
	b := newBench(t, nil)
	b.w.turn.Lock()
	defer b.w.turn.Unlock()
	for range 1000 {
		b.w.box.deliver([]stream.Event{{From: b.tun, Kind: stream.EventCredit, Flow: b.f.id, Limit: 1 << 20}})
	}
	b.turn()
	b.w.o.Poller.Wake() // it need not wait
	_ = b.w.sleep()
	if cap(b.w.mail.events)+cap(b.w.box.events) < 1000 {
		t.Error("a worker with flows gives its room away")
	}
	b.w.box.deliver([]stream.Event{{From: b.tun, Kind: stream.EventReset, Flow: b.f.id, Code: stream.CodeAbort}})
	b.turn()
	b.w.o.Poller.Wake()
	if err := b.w.sleep(); err != nil {
		t.Fatal(err)
	}
	if n := cap(b.w.mail.events) + cap(b.w.box.events); b.w.Flows() > 0 || n > 200 {
		t.Errorf("%d flows, room for %d events", b.w.Flows(), n)
	}
}
