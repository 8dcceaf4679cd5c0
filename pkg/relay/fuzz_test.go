package relay

import (
	"bytes"
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// FuzzSealedStream gives a flow arbitrary bytes as its sealed stream, in
// arbitrary cuts, after a true record: nothing but that record is delivered,
// nothing is lost from the pools, and the worker does not spin.
func FuzzSealedStream(f *testing.F) {
	f.Add([]byte{0, 17, 0, 0, 1, 2, 3}, uint8(3), true)
	f.Add([]byte{0xff, 0xff, 9, 9}, uint8(1), false)
	f.Add(bytes.Repeat([]byte{0, 20, 1, 0, 5, 6}, 40), uint8(50), true)
	f.Fuzz(func(t *testing.T, p []byte, piece uint8, fin bool) {
		live := buffer.Live()
		b := newBench(t, nil)
		b.f.note(party.Writable)
		say := func(v stream.Event) {
			v.Flow, v.From = 1, b.tun
			b.w.Deliver([]stream.Event{v})
		}
		for range attempts + 1 {
			say(stream.Event{Kind: stream.EventData, Seg: newSealer(t).record(b.f.down.counter, []byte("true"))})
			for q := p; len(q) > 0; {
				n := min(1+int(piece), len(q))
				say(stream.Event{Kind: stream.EventData, Seg: buffer.Copy(q[:n])})
				q = q[n:]
			}
			if fin {
				say(stream.Event{Kind: stream.EventFin})
			}
			for n := 0; b.w.box.sleep(b.w.Flows()) == false || b.w.rota.flows > 0; n++ {
				if b.turn(); n > 20 {
					t.Fatal("the worker spins")
				}
			}
			say(stream.Event{Kind: stream.EventRewind})
		}
		if b.conn.taken%len("true") != 0 || b.conn.taken > (attempts+1)*len("true") {
			t.Fatalf("%d bytes were delivered", b.conn.taken)
		}
		b.w.close()
		if now := buffer.Live(); now != live {
			t.Fatalf("%d bytes of slabs are not released", now-live)
		}
	})
}
