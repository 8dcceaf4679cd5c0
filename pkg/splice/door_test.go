package splice

import "testing"

// TestDoor: a flow is pending until its server is there, then open until both
// ends have closed; who is not let in leaves nothing. What the other tests do
// is counted right, too: see tableWith.
func TestDoor(t *testing.T) {
	u := modern()
	w, _ := call(t, u)
	if pending, open := w.door.counts(); pending != 1 || open != 0 {
		t.Errorf("calling: %d pending, %d open", pending, open)
	}
	w.door.shut = true
	if w.table.Open(w.now, Client{Addr: server4, Server: client4, ISS: 1, Ours: 2}) {
		t.Error("a client that the door keeps out was taken")
	}
	if c := w.table.Counters(); w.table.Flows() != 1 || c.Greedy != 1 || c.Full != 0 || c.Begun != 1 {
		t.Errorf("%d flows, %+v", w.table.Flows(), c)
	}
	w = spliced(t, u)
	if pending, open := w.door.counts(); pending != 0 || open != 1 {
		t.Errorf("open: %d pending, %d open", pending, open)
	}
	w.forward(w.fromClient(flagFIN, u.iss+1, u.isn+1, ""))
	w.forward(w.fromServer(flagFIN, u.srv+1, u.iss+2, ""))
	w.forward(w.fromClient(0, u.iss+2, u.isn+2, ""))
	if pending, open := w.door.counts(); pending != 0 || open != 0 || w.table.Flows() != 1 {
		t.Errorf("closed: %d pending, %d open, %d flows in the table", pending, open, w.table.Flows())
	}
}
