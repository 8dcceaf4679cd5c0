package guard

import (
	"encoding/binary"
	"testing"
)

// TestFlowStrange: only what acknowledges numbers that the flow has not sent is
// taken for another connection's.
func TestFlowStrange(t *testing.T) {
	f := waiting(false)
	other := wrapped(cookieISN, 3<<30)
	check := func(what string, ackn uint32, want bool) {
		t.Helper()
		if got := f.Strange(ack(clientISN+1, ackn, 500, 92, 20)); got != want {
			t.Errorf("%v: %s is strange: %v, want %v", f.State(), what, got, want)
		}
	}
	check("the flow's own ACK", cookieISN+1, false)
	check("an ACK of another cookie", other, true)
	f.Serve(5000, -1)
	join(t, &f, 1000)
	if f.State() != Open {
		t.Fatalf("the flow is %v", f.State())
	}
	check("the flow's own ACK", cookieISN+1, false)
	check("an ACK of another cookie", other, true)
	reset := ack(clientISN+1, other, 500, 92, 20)
	reset[13] |= FlagRST
	if f.Strange(reset) {
		t.Error("a reset is strange")
	}
	// A download that goes round the numbers more than once.
	sent := uint32(stackISN)
	for range 100 {
		sent += 50 << 20
		out := ack(sent, clientISN+1, 500, 20, 92)
		f.Outbound(out, 0, true)
		client := binary.BigEndian.Uint32(out[4:])
		check("an ACK of what was just sent", client, false)
		check("an ACK of what is under way", client-4<<20, false)
	}
}
